from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabiyarn_edge.tasks.units import split_units

DOCUMENT = (
    "\n  Dr. A. B. Adéwálé dé ní aago 3.30. Ó ra ilé kan! \n\n\tṢé bẹ́ẹ̀ ni? Bẹ́ẹ̀ ni.\r\n"
    "Malam Bello ya iso\u00a0Kano. E buy house. Na so?"
)


def units(text, unit, most=1000):
    return [piece for piece, is_unit in split_units(text, unit, lambda piece: len(piece) <= most) if is_unit]


def test_sentences():
    assert units(DOCUMENT, "sentence") == [
        "Dr. A. B. Adéwálé dé ní aago 3.30.",
        "Ó ra ilé kan!",
        "Ṣé bẹ́ẹ̀ ni?",
        "Bẹ́ẹ̀ ni.",
        "Malam Bello ya iso\u00a0Kano.",
        "E buy house.",
        "Na so?",
    ]


def test_lines():
    assert units(DOCUMENT, "line") == [
        "Dr. A. B. Adéwálé dé ní aago 3.30. Ó ra ilé kan!",
        "Ṣé bẹ́ẹ̀ ni? Bẹ́ẹ̀ ni.",
        "Malam Bello ya iso\u00a0Kano. E buy house. Na so?",
    ]


def test_a_text_is_one_unit():
    assert units(DOCUMENT, "text", most=1) == [DOCUMENT.strip()]


def test_lines_that_do_not_fit_are_cut_into_sentences_and_these_between_words():
    assert units("One two. Three four five six. Seven", "line", most=12) == [
        "One two.",
        "Three four",
        "five six.",
        "Seven",
    ]


def test_a_word_is_never_cut():
    assert units("a" * 50 + " b", "sentence", most=10) == ["a" * 50, "b"]


@pytest.mark.parametrize("unit", ["text", "line", "sentence"])
@given(
    text=st.text(st.sampled_from("aB ọ\u0301.!?\"'()…\n\r\t\u00a0\u3000\u2028\u200b,;“”-1"), max_size=60),
    most=st.integers(1, 30),
)
def test_nothing_is_lost(unit, text, most):
    pieces = split_units(text, unit, lambda piece: len(piece) <= most)
    assert "".join(piece for piece, _ in pieces) == text
    for piece, is_unit in pieces:
        assert bool(piece.strip()) == is_unit
        assert not is_unit or piece == piece.strip()
        if is_unit and unit != "text":
            assert len(piece) <= most or not any(char.isspace() for char in piece)
