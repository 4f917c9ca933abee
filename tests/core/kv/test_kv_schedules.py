"""KV storage, bit for bit, over random schedules of all that can be done to rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sabiyarn_edge._core import KvCache
from tests.core.kv.twins_kv import CacheTwin, at_slots, put_at_slots
from tests.schedules import LENGTHS, schedule_settings

MAX_ROWS = 6

TINY = {"num_layers": 2, "num_heads": 3, "head_dim": 4, "min_capacity": 16}
PAGED = {"num_layers": 2, "num_heads": 2, "head_dim": 64, "min_capacity": 64}
"""A shape whose rows are whole pages of 4096 bytes (64 positions * 64 * 2 heads, of 1 or 2 bytes): forks share them."""


class Schedule(RuleBasedStateMachine):
    """A KvCache beside a twin that keeps every position's values in a dictionary."""

    shape: dict[str, Any] = TINY
    windows = st.integers(2, 70)
    slacks = st.sampled_from([0, 0, 70])

    @initialize(
        data=st.data(),
        dtype=st.sampled_from(["float16", "float32", "int8"]),
        seed=st.integers(0, 2**32 - 1),
        rows=st.integers(1, 4),
    )
    def start(self, data: st.DataObject, dtype: str, seed: int, rows: int) -> None:
        self.dtype = dtype
        window, slack = data.draw(self.windows, "window"), data.draw(self.slacks, "slack")
        sinks = data.draw(st.integers(0, min(window - 2, 20)), "sinks")
        self.rng = np.random.default_rng(seed)
        ring = {"window": window, "num_sink_tokens": sinks, "slack": slack}
        self.cache = KvCache(**self.shape, dtype=dtype, **ring)
        self.twin = CacheTwin(window, sinks, slack)
        self.reset(rows)

    @rule(rows=st.integers(1, 4))
    def reset(self, rows: int) -> None:
        self.cache.clear()
        self.cache.resize(rows)
        self.twin.reset(rows)

    @rule(rows=st.integers(1, 2))
    def add_rows(self, rows: int) -> None:
        rows = min(len(self.twin.rows) + rows, MAX_ROWS)
        self.cache.resize(rows)
        self.twin.resize(rows)

    @rule(data=st.data(), times=st.integers(1, 3), at_once=st.booleans())
    def append(self, data: st.DataObject, times: int, at_once: bool) -> None:
        for _ in range(times):
            row = self.draw_row(data)
            count = data.draw(st.integers(1, self.cache.max_append(row)), "count")
            values = self.rng.integers(-128, 128, (count, *self.position_shape())).astype(self.dtype)
            if at_once:
                self.cache.write(row, np.ascontiguousarray(np.moveaxis(values, 0, 3)))
            else:
                end = self.cache.begin_append(row, count)
                ring = self.twin.rows[row][0]
                slots = [ring.slot_of(position) for position in range(end - count, end)]
                for layer, side, buffer in self.buffers():
                    put_at_slots(buffer, row, slots, values[:, layer, side])
            self.twin.append(row, values)

    @rule(data=st.data(), whole=st.booleans())
    def fork(self, data: st.DataObject, whole: bool) -> None:
        source = self.draw_row(data)
        others = [row for row in range(len(self.twin.rows)) if row != source]
        if not others:
            return
        targets = data.draw(st.lists(st.sampled_from(others), min_size=1, unique=True), "targets")
        allowed = self.twin.rows[source][0].may_truncate_to()
        total = (
            allowed.stop - 1 if whole else data.draw(st.integers(allowed.start, allowed.stop - 1), "total")
        )
        self.cache.fork(source, targets, total)
        self.twin.fork(source, targets, total)

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        row = self.draw_row(data)
        allowed = self.twin.rows[row][0].may_truncate_to()
        total = data.draw(st.integers(allowed.start, allowed.stop - 1), "total")
        self.cache.truncate(row, total)
        self.twin.truncate(row, total)

    @rule(data=st.data(), beyond=st.integers(1, 5), forwards=st.booleans())
    def truncate_beyond_what_is_held(self, data: st.DataObject, beyond: int, forwards: bool) -> None:
        row = self.draw_row(data)
        allowed = self.twin.rows[row][0].may_truncate_to()
        total = allowed.stop - 1 + beyond if forwards else allowed.start - beyond
        message = f"truncate to {total}: the row can be cut to {allowed.start} to {allowed.stop - 1} tokens"
        with pytest.raises(IndexError, match=message):
            self.cache.truncate(row, total)

    @rule(data=st.data(), released=st.booleans())
    def restart(self, data: st.DataObject, released: bool) -> None:
        row = self.draw_row(data)
        (self.cache.release_row if released else self.cache.restart)(row)
        self.twin.restart(row)

    @rule(rows=st.integers(1, 3))
    def clear(self, rows: int) -> None:
        before = self.cache.nbytes
        self.cache.clear()
        assert self.cache.nbytes == before
        self.reset(rows)
        self.cache.reserve(min(self.cache.ring_size, self.shape["min_capacity"]))
        assert not any(buffer.any() for _, _, buffer in self.buffers())

    @rule(rows=st.integers(1, 3))
    def free(self, rows: int) -> None:
        self.cache.free()
        assert self.cache.nbytes == 0
        self.reset(rows)

    @rule(data=st.data())
    def read_what_is_not_held(self, data: st.DataObject) -> None:
        row = self.draw_row(data)
        ring = self.twin.rows[row][0]
        first = data.draw(st.integers(-1, ring.total), "first")
        end = data.draw(st.integers(first, ring.total + 1), "end")
        if not {*range(first, end)} <= {*ring.held}:
            with pytest.raises(IndexError, match=f"read positions {first} to {end}: "):
                self.cache.read(row, first, end)

    @invariant()
    def rows_hold_what_was_written(self) -> None:
        if not hasattr(self, "twin"):
            return
        cache = self.cache
        assert cache.num_rows == len(self.twin.rows)
        assert cache.nbytes >= cache.num_rows * cache.capacity * cache.bytes_per_position
        assert cache.capacity % 16 == 0
        for row, (ring, store) in enumerate(self.twin.rows):
            assert (cache.next_position(row), cache.oldest(row)) == (ring.total, ring.oldest)
            if not ring.held:
                continue
            expected = np.array(
                [store[position] for position in ring.held]
            )  # [held, layer, side, head, head_dim]
            slots = [ring.slot_of(position) for position in ring.held]
            for layer, side, buffer in self.buffers():
                np.testing.assert_array_equal(at_slots(buffer, row, slots), expected[:, layer, side])
            recent = ring.held[-1] - max(ring.oldest, 0) + 1
            read = cache.read(row, ring.total - recent, ring.total)
            assert read.dtype == self.dtype
            np.testing.assert_array_equal(np.moveaxis(read, 3, 0), expected[-recent:])

    @invariant()
    def rows_hold_the_same_in_the_slots_they_share(self) -> None:
        if not hasattr(self, "twin"):
            return
        for row in range(self.cache.num_rows):
            for other in range(row):
                shared = self.cache.shared_slots(row, other)
                assert shared == self.cache.shared_slots(other, row)
                assert shared <= min(self.used_slots(row), self.used_slots(other))
                for _, _, buffer in self.buffers() if shared else ():
                    here, there = (at_slots(buffer, of, list(range(shared))) for of in (row, other))
                    np.testing.assert_array_equal(here, there)

    def used_slots(self, row: int) -> int:
        """Slots that were written: all of the ring once something was evicted, even if the row was cut since."""
        ring = self.twin.rows[row][0]
        return self.cache.ring_size if ring.oldest > 0 else ring.total

    def position_shape(self) -> tuple[int, ...]:
        return self.shape["num_layers"], 2, self.shape["num_heads"], self.shape["head_dim"]

    def buffers(self) -> list[tuple[int, int, np.ndarray]]:
        """(layer, side, view) of all."""
        found = []
        for layer in range(self.shape["num_layers"]):
            for side, name in enumerate(("key", "value")):
                view = self.cache.buffer(layer, name)
                assert view is not None
                found.append((layer, side, view))
        return found

    def draw_row(self, data: st.DataObject) -> int:
        return int(data.draw(st.integers(0, len(self.twin.rows) - 1), "row"))


class PagedSchedule(Schedule):
    """The same where forks share pages, which each row copies when it writes."""

    shape = PAGED
    windows = st.sampled_from([64, 100, 192])


@pytest.mark.parametrize("longer", LENGTHS)
@pytest.mark.parametrize(
    ("machine", "schedules"), [(Schedule, 60), (PagedSchedule, 20)], ids=["many-wraps", "shared-pages"]
)
def test_rows_hold_what_was_written(machine: type[Schedule], schedules: int, longer: int) -> None:
    run_state_machine_as_test(machine, settings=schedule_settings(longer, schedules=schedules, steps=25))
