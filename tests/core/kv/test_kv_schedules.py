"""KV storage, bit for bit, over random schedules of all that can be done to rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sabiyarn_edge._core import KvCache
from tests.core.kv.twins_kv import CacheTwin

MAX_ROWS = 6

TINY = {"num_layers": 2, "num_heads": 3, "head_dim": 4, "min_capacity": 2}
PAGED = {"num_layers": 2, "num_heads": 2, "head_dim": 64, "min_capacity": 64}
"""A shape whose rows are whole pages of 4096 bytes (64 positions * 64 * 2 heads, of 1 or 2 bytes): forks share them."""


class Schedule(RuleBasedStateMachine):
    """A KvCache beside a twin that keeps every position's values in a dictionary."""

    shape: dict[str, Any] = TINY
    windows = st.integers(2, 11)
    most_at_once = 11

    @initialize(
        data=st.data(),
        dtype=st.sampled_from(["float16", "int8"]),
        seed=st.integers(0, 2**32 - 1),
        rows=st.integers(1, 4),
    )
    def start(self, data: st.DataObject, dtype: str, seed: int, rows: int) -> None:
        self.dtype = dtype
        self.window = data.draw(self.windows, "window")
        self.sinks = data.draw(st.integers(0, min(self.window - 2, 9)), "sinks")
        self.rng = np.random.default_rng(seed)
        self.cache = KvCache(**self.shape, dtype=dtype, window=self.window, num_sink_tokens=self.sinks)
        self.twin = CacheTwin(self.window, self.sinks)
        self.reset(rows)

    @rule(rows=st.integers(1, 4))
    def reset(self, rows: int) -> None:
        self.cache.reset(rows)
        self.twin.reset(rows)

    @rule(data=st.data(), times=st.integers(1, 3))
    def append(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            row = self.draw_row(data)
            most = self.window - min(len(self.twin.rows[row][0].held), self.sinks)
            count = data.draw(st.integers(1, min(most, self.most_at_once)), "count")
            layers, heads, head_dim = (self.shape[name] for name in ("num_layers", "num_heads", "head_dim"))
            values = self.rng.integers(-128, 128, (count, layers, 2, heads, head_dim)).astype(self.dtype)
            end = self.cache.begin_append(row, count)
            for layer in range(layers):
                for index, side in enumerate(("key", "value")):
                    # What the graph does: it writes at the end of the row's live slots.
                    target = self.buffer(layer, side)[row, :, end - count : end]
                    target[...] = values[:, layer, index].transpose(1, 0, 2)
            self.twin.append(row, values)

    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        rows = st.integers(0, len(self.twin.rows) - 1)
        sources = data.draw(st.lists(rows, min_size=1, max_size=MAX_ROWS), "sources")
        self.cache.reorder(sources)
        self.twin.reorder(sources)

    @rule(data=st.data(), rows=st.integers(2, MAX_ROWS))
    def fork(self, data: st.DataObject, rows: int) -> None:
        sources = [self.draw_row(data)] * rows
        self.cache.reorder(sources)
        self.twin.reorder(sources)

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

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        row = self.draw_row(data)
        self.cache.restart(row)
        self.twin.restart(row)

    @rule(data=st.data())
    def keep_prefix(self, data: st.DataObject) -> None:
        row = self.draw_row(data)
        if allowed := self.twin.may_keep(row):
            total = data.draw(st.sampled_from(allowed), "total")
            self.cache.keep_prefix(row, total)
            self.twin.keep_prefix(row, total)
            assert self.cache.capacity <= max(
                2 * total, self.shape["min_capacity"]
            )  # what fits, not what there was

    @rule(rows=st.integers(1, 3))
    def clear(self, rows: int) -> None:
        before = self.cache.nbytes
        self.cache.clear()
        assert self.cache.nbytes == before
        self.reset(rows)
        self.cache.reserve(min(self.window, self.shape["min_capacity"]))
        assert not any(
            self.buffer(layer, side).any()
            for layer in range(self.shape["num_layers"])
            for side in ("key", "value")
        )

    @rule(rows=st.integers(1, 3))
    def free(self, rows: int) -> None:
        self.cache.free()
        assert self.cache.nbytes == 0
        self.reset(rows)

    @invariant()
    def rows_hold_what_was_written(self) -> None:
        if not hasattr(self, "twin"):
            return
        cache = self.cache
        assert cache.num_rows == len(self.twin.rows)
        assert cache.nbytes >= cache.num_rows * cache.capacity * cache.bytes_per_position
        for row, (ring, store) in enumerate(self.twin.rows):
            assert (cache.length(row), cache.next_position(row)) == (len(ring.held), ring.total)
            by_slot = cache.positions(row).tolist()
            assert sorted(by_slot) == ring.held
            assert [cache.slot_of(row, position) for position in by_slot] == list(range(len(by_slot)))
            if not by_slot:
                continue
            expected = np.array(
                [store[position] for position in by_slot]
            )  # [slot, layer, side, head, head_dim]
            for layer in range(self.shape["num_layers"]):
                for index, side in enumerate(("key", "value")):
                    held = self.buffer(layer, side)[row, :, : len(by_slot)].transpose(1, 0, 2)
                    np.testing.assert_array_equal(
                        held.view(np.uint16), expected[:, layer, index].view(np.uint16)
                    )

    def buffer(self, layer: int, side: str) -> np.ndarray:
        view = self.cache.buffer(layer, side)
        assert view is not None
        return view

    def draw_row(self, data: st.DataObject) -> int:
        return int(data.draw(st.integers(0, len(self.twin.rows) - 1), "row"))


class PagedSchedule(Schedule):
    """The same where forks share pages, which each row copies when it writes."""

    shape = PAGED
    windows = st.sampled_from([64, 100, 192])  # 192: whole pages in int8 too
    most_at_once = 60


@pytest.mark.parametrize(
    ("machine", "schedules"), [(Schedule, 60), (PagedSchedule, 20)], ids=["many-wraps", "shared-pages"]
)
def test_rows_hold_what_was_written(machine: type[Schedule], schedules: int) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=schedules, stateful_step_count=25, deadline=None)
    )
