"""SlidingContext against feeding token by token, and prompts that are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.options.overflow import Overflow, SlidingContext, cut_prompt
from tests.sliding_oracle import feed


@given(st.data())
def test_the_context_is_what_feeding_token_by_token_leaves(data: st.DataObject) -> None:
    positions = data.draw(st.integers(2, 20), "positions")
    window = data.draw(st.integers(2, positions), "window")
    keep = data.draw(st.integers(0, window - 2), "keep")
    context = SlidingContext(positions, window, keep)
    tokens = list(range(data.draw(st.integers(1, 90), "tokens")))
    for count in range(1, len(tokens) + 1):
        seen, slid = feed(tokens[:count], positions, keep, window)
        assert context.of(tokens[:count]) == seen
        assert context.length(count) == len(seen)
        assert context.slides_at(count) == slid
        steps = context.until_slide(count)
        assert context.slides_at(count + steps)
        assert not any(context.slides_at(count + i) for i in range(1, steps))


def test_a_slide_leaves_no_more_than_the_window_holds() -> None:
    context = SlidingContext(100, 30, 4)
    assert len(context.of(range(101))) == 30 + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("crop", 0), "overflow is 'crop'.*'error'.*'slide'.*'truncate_prompt'"),
        (("slide", -1), "keep_tokens is -1.*at least 0"),
        (("slide", 2.5), "keep_tokens is 2.5.*integer"),
    ],
)
def test_bad_settings_are_refused(options: tuple[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Overflow(*options)


def test_kept_tokens_leave_room_for_others() -> None:
    SlidingContext(10, 10, 8)
    with pytest.raises(InvalidInputError, match="keep_tokens is 9; with 10 positions it must be at most 8"):
        SlidingContext(10, 10, 9)
    with pytest.raises(InvalidInputError, match="keep_tokens is 5; with 6 positions"):
        SlidingContext(10, 6, 5)


@pytest.mark.parametrize(
    ("new_tokens", "window", "keep", "expected"),
    [
        (4, 16, 0, list(range(12))),  # it fits
        (5, 16, 0, list(range(1, 12))),
        (10, 16, 2, [0, 1, 8, 9, 10, 11]),
        (4, 6, 2, [0, 1, 8, 9, 10, 11]),  # the window is what is short
        (15, 16, 0, [11]),
    ],
)
def test_a_prompt_is_cut_to_its_head_and_tail(
    new_tokens: int, window: int, keep: int, expected: list[int]
) -> None:
    found = cut_prompt(list(range(12)), new_tokens=new_tokens, positions=16, window=window, keep_tokens=keep)
    assert found == expected


def test_a_prompt_that_cannot_be_cut_enough_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"12 tokens, .*keep_tokens=2 .*at most 13 new tokens"):
        cut_prompt(list(range(12)), new_tokens=14, positions=16, window=16, keep_tokens=2)
