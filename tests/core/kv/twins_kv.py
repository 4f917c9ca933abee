"""Slow NumPy twins of the KV storage: they keep every position in a dictionary and never move anything."""

from __future__ import annotations

import numpy as np

from tests.core.kernels.twins_attention import KEY_TILE, slot_of


class RingTwin:
    """Which positions a row holds: the sinks and the newest of the others."""

    def __init__(self, window: int, num_sink_tokens: int = 0, slack: int = 0) -> None:
        self.window, self.num_sinks = window, num_sink_tokens
        self.size = -(-(window + slack) // 64) * 64
        self.held: list[int] = []
        self.total = 0

    @property
    def oldest(self) -> int:
        """The lowest position held behind the sinks, 0 if nothing was evicted."""
        recent = [position for position in self.held if position >= self.num_sinks]
        return recent[0] if recent and recent[0] > self.num_sinks else 0

    def sees(self, position: int) -> list[int]:
        """What a token at `position` must find held, itself included."""
        recent = range(max(position - (self.window - self.num_sinks) + 1, 0), position + 1)
        return sorted({*range(min(self.num_sinks, position)), *recent})

    def after_append(self, count: int) -> list[int]:
        """The positions held then; the oldest make room."""
        held = self.held + list(range(self.total, self.total + count))
        del held[self.num_sinks : self.num_sinks + max(len(held) - self.size, 0)]
        return held

    def may_append(self, count: int) -> bool:
        """Does each of the tokens see its whole window?"""
        held = {*self.after_append(count)}
        return all(held.issuperset(self.sees(self.total + i)) for i in range(count))

    def append(self, count: int) -> None:
        self.held = self.after_append(count)
        self.total += count

    def truncate(self, total: int) -> None:
        self.held = [position for position in self.held if position < total]
        self.total = total

    def may_truncate_to(self) -> range:
        """All totals behind which a token sees its whole window."""
        held, total = {*self.held}, self.total
        while total > 0 and held.issuperset(self.sees(total - 1)):
            total -= 1
        return range(total, self.total + 1)

    def slot_of(self, position: int) -> int:
        return slot_of(position, self.num_sinks, self.size)

    def copy(self) -> RingTwin:
        twin = RingTwin(self.window, self.num_sinks)
        twin.size, twin.held, twin.total = self.size, list(self.held), self.total
        return twin


class CacheTwin:
    """Per row: the positions held, and for each the values that were written (layers, 2, heads, head_dim)."""

    def __init__(self, window: int, num_sink_tokens: int = 0, slack: int = 0) -> None:
        self.empty = RingTwin(window, num_sink_tokens, slack)
        self.rows: list[tuple[RingTwin, dict[int, np.ndarray]]] = []

    def reset(self, num_rows: int) -> None:
        self.rows = [(self.empty.copy(), {}) for _ in range(num_rows)]

    def append(self, row: int, values: np.ndarray) -> None:
        ring, store = self.rows[row]
        for i in range(len(values)):
            store[ring.total + i] = values[i]
        ring.append(len(values))

    def truncate(self, row: int, total: int) -> None:
        self.rows[row][0].truncate(total)

    def restart(self, row: int) -> None:
        self.rows[row] = (self.empty.copy(), {})

    def resize(self, num_rows: int) -> None:
        self.rows += [(self.empty.copy(), {}) for _ in range(num_rows - len(self.rows))]

    def fork(self, source: int, targets: list[int], total: int) -> None:
        for target in targets:
            self.rows[target] = self.rows[source][0].copy(), dict(self.rows[source][1])
            self.truncate(target, total)


def at_slots(buffer: np.ndarray, row: int, slots: list[int]) -> np.ndarray:
    """What these slots of a KvCache's buffer hold, [slots, heads, head_dim] (a copy)."""
    if buffer.ndim == 4:
        return buffer[row][:, slots].swapaxes(0, 1)
    return np.stack([buffer[row, :, slot // KEY_TILE, :, slot % KEY_TILE] for slot in slots])


def put_at_slots(buffer: np.ndarray, row: int, slots: list[int], values: np.ndarray) -> None:
    """The reverse, in place: what the graph does with new keys or values."""
    for slot, value in zip(slots, values, strict=True):
        if buffer.ndim == 4:
            buffer[row, :, slot] = value
        else:
            buffer[row, :, slot // KEY_TILE, :, slot % KEY_TILE] = value
