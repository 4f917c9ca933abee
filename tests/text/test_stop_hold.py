import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabiyarn_edge.text.stop_hold import StopHold

LETTERS = st.text(
    "ab", min_size=1, max_size=4
)  # two letters, so that stop strings overlap each other and themselves


def could_become_a_stop(text, stops):
    return any(stop.startswith(text) for stop in stops)


def feed(stops, pieces):
    """Push pieces until a stop string ends in one, as decoding does."""
    hold, shown, text = StopHold(stops), [], ""
    for piece in pieces:
        before, text = text, text + piece
        shown.append(hold.push(piece))
        if any(stop in text[max(0, len(before) - len(stop) + 1) :] for stop in stops):
            return hold, shown, text, True
    return hold, shown, text, False


@given(st.lists(LETTERS, min_size=1, max_size=3), st.lists(LETTERS, max_size=8))
def test_what_is_shown_is_the_text_before_the_first_stop_string(stops, pieces):
    hold, shown, text, stopped = feed(stops, pieces)
    expected = text[: min(text.find(s) for s in stops if s in text)] if stopped else text
    assert "".join(shown) + hold.finish(stopped=stopped) == expected


@given(st.lists(LETTERS, min_size=1, max_size=3), st.lists(LETTERS, min_size=1, max_size=8))
def test_nothing_is_held_that_cannot_become_a_stop_string(stops, pieces):
    _, shown, text, stopped = feed(stops, pieces)
    if not stopped:
        shown_length = len("".join(shown))
        first_possible = next(i for i in range(len(text) + 1) if could_become_a_stop(text[i:], stops))
        assert shown_length == first_possible


@given(st.lists(LETTERS, min_size=1, max_size=3), st.lists(LETTERS, max_size=8))
def test_kept_text_is_whole(stops, pieces):
    hold, shown, text, _ = feed(stops, pieces)
    assert "".join(shown) + hold.finish(stopped=False) == text


def test_a_stop_string_that_ended_nothing_is_shown_later():
    for after in (".", ""):
        hold = StopHold(["END"])
        assert hold.push(f"an END{after}") == "an "
        assert hold.push(" More") == f"END{after} More"
        assert hold.finish(stopped=True) == ""


def test_a_stop_string_behind_a_longer_one_that_was_never_completed():
    hold = StopHold(["a", "bbbbbb"])
    assert hold.push("bbbbb") == ""
    assert hold.push("a") == "bbbbb"
    assert hold.finish(stopped=True) == ""


def test_the_last_tokens_text_may_come_in_two_parts():
    hold = StopHold([" "])
    assert hold.push("word ") == "word"
    assert hold.finish("\ufffd", stopped=True) == ""


def test_without_stop_strings_all_passes_at_once():
    hold = StopHold([])
    assert hold.push("text") == "text"
    assert hold.finish("!", stopped=False) == "!"


@pytest.mark.parametrize(("stopped", "expected"), [(True, "b"), (False, "b</s>c")])
def test_text_that_comes_with_the_end_is_searched_too(stopped, expected):
    hold = StopHold(["</s>"])
    assert hold.push("ab</") == "ab"
    assert hold.push("b") == "</b"
    assert hold.push("b</s") == "b"
    hold = StopHold(["</s>"])
    assert hold.push("b</s") == "b"
    assert "b" + hold.finish(">c", stopped=stopped) == expected
