"""What rows have in common: forks share pages, and whatever changes one of them must leave the others as they were."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge._core import KvCache

LAYERS, HEADS, HEAD_DIM = 2, 2, 64


class Rows:
    """A cache whose rows are whole pages, beside the values [layers, 2, heads, head_dim] of each row's positions."""

    def __init__(self, *, window: int = 192, slack: int = 0, sinks: int = 0) -> None:
        self.cache = KvCache(
            num_layers=LAYERS,
            num_heads=HEADS,
            head_dim=HEAD_DIM,
            dtype="float16",
            window=window,
            slack=slack,
            num_sink_tokens=sinks,
            min_capacity=64,
        )
        self.cache.resize(3)
        self.rows: list[list[np.ndarray]] = [[], [], []]
        self._rng = np.random.default_rng(1)

    def append(self, row: int, count: int) -> None:
        values = self._rng.normal(size=(LAYERS, 2, HEADS, count, HEAD_DIM)).astype(np.float16)
        self.cache.write(row, values)
        self.rows[row] += list(np.moveaxis(values, 3, 0))

    def fork(self, source: int, target: int, total: int | None = None) -> None:
        total = len(self.rows[source]) if total is None else total
        self.cache.fork(source, [target], total)
        self.rows[target] = self.rows[source][:total]

    def truncate(self, row: int, total: int) -> None:
        self.cache.truncate(row, total)
        del self.rows[row][total:]

    def restart(self, row: int) -> None:
        self.cache.restart(row)
        self.rows[row] = []

    def check(self) -> None:
        for row, values in enumerate(self.rows):
            first = max(self.cache.oldest(row), 0)
            read = self.cache.read(row, first, len(values))
            assert (
                np.moveaxis(read, 3, 0) == np.array(values[first:]).reshape(-1, *read.shape[:3], HEAD_DIM)
            ).all()


@pytest.mark.parametrize("way", ["cut", "restarted"])
def test_a_fork_keeps_its_text_when_the_row_that_it_came_from_is(way: str) -> None:
    """The next layout shows the pages of the first row to its forks, as far as both have the same."""
    rows = Rows()
    rows.append(0, 64)
    rows.fork(0, 1)
    if way == "cut":
        rows.truncate(0, 10)
    else:
        rows.restart(0)
    rows.cache.resize(8)  # lays all rows out anew
    rows.check()


def test_rows_share_slots_up_to_where_one_of_them_changes() -> None:
    rows = Rows()
    rows.append(0, 150)
    rows.fork(0, 1)
    rows.fork(0, 2, total=100)
    rows.append(1, 5)
    shared = rows.cache.shared_slots
    assert (shared(0, 1), shared(0, 2), shared(1, 2)) == (150, 100, 100)
    rows.truncate(0, 120)
    assert (shared(0, 1), shared(0, 2), shared(1, 2)) == (120, 100, 100)
    rows.restart(1)
    assert (shared(0, 1), shared(0, 2), shared(1, 2)) == (0, 100, 0)
    with pytest.raises(IndexError, match="row 3 is not one of the 3 rows"):
        shared(0, 3)


def test_a_short_fork_shares_no_more_than_it_has() -> None:
    rows = Rows()
    rows.append(1, 64)
    rows.fork(1, 2)
    rows.fork(1, 0, total=10)
    rows.cache.resize(8)
    rows.check()


def test_a_row_that_goes_on_at_the_rings_beginning_is_copied_from_there() -> None:
    rows = Rows(window=64, slack=64, sinks=2)
    rows.append(0, 124)
    rows.fork(0, 1)
    rows.append(1, 8)  # 4 at the ring's end of 128 slots, 4 behind the sinks
    rows.check()
    rows.fork(0, 1)
    rows.check()


def test_a_row_forked_behind_a_full_ring_shares_what_lies_in_all_slots() -> None:
    """Both rows keep token 128 in slot 0, in front of the 65 that the fork continues."""
    rows = Rows(window=65)
    rows.append(0, 128)
    rows.append(0, 1)
    rows.fork(0, 1, total=65)
    assert rows.cache.shared_slots(0, 1) == rows.cache.ring_size == 128
    rows.append(1, 1)  # into slot 65
    assert rows.cache.shared_slots(0, 1) == 65
    rows.check()


def test_rows_that_grow_in_place_are_moved_from_the_last_to_the_first() -> None:
    rows = Rows()
    rows.append(0, 192)
    rows.cache.clear()  # which keeps the memory of 192 positions
    rows.cache.resize(3)
    rows.rows = [[], [], []]
    for row in range(3):
        rows.append(row, 58)
    before = rows.cache.nbytes
    rows.append(0, 10)
    assert (rows.cache.capacity, rows.cache.nbytes) == (128, before)
    rows.check()
