"""Slow NumPy twins of the KV storage: they keep every position in a list and never move anything."""

from __future__ import annotations

import numpy as np


class RingTwin:
    """Which positions a row holds: the sinks and the newest of the others."""

    def __init__(self, window: int, num_sink_tokens: int = 0) -> None:
        self.window, self.num_sinks = window, num_sink_tokens
        self.held: list[int] = []
        self.total = 0

    def append(self, count: int) -> None:
        surplus = max(len(self.held) + count - self.window, 0)
        del self.held[self.num_sinks : self.num_sinks + surplus]
        self.held += range(self.total, self.total + count)
        self.total += count

    def truncate(self, total: int) -> None:
        self.held = [position for position in self.held if position < total]
        self.total = total

    def may_truncate_to(self) -> range:
        """All totals that forget held positions only."""
        wrapped = len(self.held) < self.total
        recent = self.held[self.num_sinks :]
        oldest = (recent[0] if recent else self.total) if wrapped else 0
        return range(oldest, self.total + 1)

    def copy(self) -> RingTwin:
        twin = RingTwin(self.window, self.num_sinks)
        twin.held, twin.total = list(self.held), self.total
        return twin


class CacheTwin:
    """Per row: the positions held, and for each the values that were written (layers, 2, heads, head_dim)."""

    def __init__(self, window: int, num_sink_tokens: int = 0) -> None:
        self.window, self.num_sinks = window, num_sink_tokens
        self.rows: list[tuple[RingTwin, dict[int, np.ndarray]]] = []

    def reset(self, num_rows: int) -> None:
        self.rows = [(RingTwin(self.window, self.num_sinks), {}) for _ in range(num_rows)]

    def append(self, row: int, values: np.ndarray) -> None:
        ring, store = self.rows[row]
        for i in range(len(values)):
            store[ring.total + i] = values[i]
        ring.append(len(values))

    def truncate(self, row: int, total: int) -> None:
        self.rows[row][0].truncate(total)

    def restart(self, row: int) -> None:
        self.rows[row] = (RingTwin(self.window, self.num_sinks), {})

    def may_keep(self, row: int) -> range:
        """All totals that keep_prefix may cut this row to."""
        ring = self.rows[row][0]
        return range(1, ring.total + 1 if len(ring.held) == ring.total else 1)

    def keep_prefix(self, row: int, total: int) -> None:
        self.rows = [self.rows[row]]
        self.truncate(0, total)

    def reorder(self, sources: list[int]) -> None:
        self.rows = [(self.rows[s][0].copy(), dict(self.rows[s][1])) for s in sources]
