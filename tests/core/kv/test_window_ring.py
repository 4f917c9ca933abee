"""The slots of a full window, against a twin that only knows which positions must be held."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge._core import WindowRing
from tests.core.kv.twins_kv import RingTwin


class TrackedRing:
    """A WindowRing together with what its slots would hold if every move were carried out."""

    def __init__(self, window: int, sinks: int) -> None:
        self.ring = WindowRing(window, sinks)
        self.slots: list[int | None] = [None] * window

    def append(self, count: int) -> None:
        first = self.ring.total
        landing, moves = self.ring.append(count)
        self.carry_out(moves)
        assert landing + count == self.ring.length  # the new tokens end the live slots
        self.slots[landing : landing + count] = range(first, first + count)

    def truncate(self, total: int) -> None:
        self.carry_out(self.ring.truncate(total))

    def carry_out(self, moves: list[tuple[int, int]]) -> None:
        sources, targets = {a for a, _ in moves}, {b for _, b in moves}
        assert len(sources) == len(targets) == len(moves)
        assert not sources & targets  # any order of the moves will do
        for source, target in moves:
            self.slots[target] = self.slots[source]

    def check(self, twin: RingTwin) -> None:
        assert self.ring.length == len(twin.held)
        assert self.ring.total == twin.total
        live = self.slots[: self.ring.length]
        assert sorted(live) == twin.held
        for position in range(twin.total + 2):
            expected = live.index(position) if position in twin.held else -1
            assert self.ring.slot_of(position) == expected


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_ring_holds_the_sinks_and_the_newest_positions(data: st.DataObject) -> None:
    window = data.draw(st.integers(2, 12), "window")
    sinks = data.draw(st.integers(0, window - 2), "sinks")
    tracked, twin = TrackedRing(window, sinks), RingTwin(window, sinks)
    for _ in range(data.draw(st.integers(1, 25), "operations")):
        if data.draw(st.integers(0, 3), "kind"):
            count = data.draw(st.integers(1, window - min(len(twin.held), sinks)), "count")
            tracked.append(count)
            twin.append(count)
        else:
            allowed = twin.may_truncate_to()
            total = data.draw(st.integers(allowed.start, allowed.stop - 1), "total")
            tracked.truncate(total)
            twin.truncate(total)
        tracked.check(twin)


def test_one_token_into_a_full_ring_moves_one_slot() -> None:
    ring = WindowRing(8)
    ring.append(8)
    assert ring.append(1) == (7, [(7, 0)])  # position 0 goes; position 7 takes its slot; 8 lands at the end
    assert ring.append(1) == (7, [(7, 1)])


def test_truncating_beyond_what_is_held_is_refused_and_changes_nothing() -> None:
    ring = WindowRing(4)
    for _ in range(6):
        ring.append(1)
    for total in (1, 7):
        with pytest.raises(IndexError, match=f"truncate to {total}: the row can be cut to 2 to 6 tokens"):
            ring.truncate(total)
    assert (ring.length, ring.total) == (4, 6)


@pytest.mark.parametrize(
    ("window", "sinks", "what"),
    [(1, 0, "window"), (0, 0, "window"), (4, 3, "num_sink_tokens"), (4, -1, "num_sink_tokens")],
)
def test_impossible_windows_are_refused(window: int, sinks: int, what: str) -> None:
    with pytest.raises(ValueError, match=f"^{what} must be between"):
        WindowRing(window, sinks)


@pytest.mark.parametrize("count", [0, -1, 5])
def test_impossible_appends_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="between 1 token and the window less the sinks"):
        WindowRing(4, 1).append(count)
