"""The ring in closed form, against a twin that only knows which positions a token must find."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge._core_testing import WindowRing
from tests.core.kv.twins_kv import RingTwin


@given(st.data())
@settings(max_examples=300)
def test_every_token_finds_its_whole_window(data: st.DataObject) -> None:
    window = data.draw(st.integers(2, 140), "window")
    sinks = data.draw(st.integers(0, window - 2), "sinks")
    slack = data.draw(st.integers(0, 70), "slack")
    ring, twin = WindowRing(window, sinks, slack), RingTwin(window, sinks, slack)
    slots: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 15), "operations")):
        assert twin.may_append(ring.max_append) and not twin.may_append(ring.max_append + 1)
        if data.draw(st.integers(0, 3), "kind"):
            count = data.draw(st.integers(1, ring.max_append), "count")
            for position in range(twin.total, twin.total + count):
                slots[ring.slot_of(position)] = position
            ring.append(count)
            twin.append(count)
        else:
            allowed = twin.may_truncate_to()
            total = data.draw(st.integers(allowed.start, allowed.stop - 1), "total")
            ring.truncate(total)
            twin.truncate(total)
        assert (ring.size, ring.total, ring.oldest) == (twin.size, twin.total, twin.oldest)
        assert all(slots[ring.slot_of(position)] == position for position in twin.held)
        assert all(ring.slot_of(position) == twin.slot_of(position) for position in twin.held)


def test_without_eviction_slots_are_positions() -> None:
    ring = WindowRing(100, 3)
    assert ring.size == 128
    assert [ring.slot_of(position) for position in range(128)] == list(range(128))
    assert [ring.slot_of(position) for position in (128, 252, 253)] == [3, 127, 3]


def test_truncating_into_what_is_evicted_is_refused_and_changes_nothing() -> None:
    ring = WindowRing(60, 4)
    ring.append(64)
    ring.append(5)
    assert ring.oldest == 69 - 60
    for total in (63, 70):
        with pytest.raises(IndexError, match=f"truncate to {total}: the row can be cut to 64 to 69 tokens"):
            ring.truncate(total)
    assert (ring.total, ring.oldest) == (69, 9)
    ring.truncate(64)
    ring.append(5)


@pytest.mark.parametrize(
    ("window", "sinks", "slack", "message"),
    [
        (1, 0, 0, "window must be between 2 and 2147483647, not 1"),
        (2**31, 0, 0, "window must be between"),
        (4, 3, 0, "num_sink_tokens must be between 0 and 2, not 3"),
        (4, -1, 0, "num_sink_tokens must be between 0 and 2, not -1"),
        (4, 0, -1, "slack must be between"),
    ],
)
def test_impossible_windows_are_refused(window: int, sinks: int, slack: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        WindowRing(window, sinks, slack)


@pytest.mark.parametrize("count", [0, -1, 65])
def test_impossible_appends_are_refused(count: int) -> None:
    message = (
        f"an append of {count} tokens; behind 0 tokens a ring of 64 slots with a window of 4 takes 1 to 64"
    )
    with pytest.raises(ValueError, match=message):
        WindowRing(4, 1).append(count)
