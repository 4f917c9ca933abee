import itertools
import unicodedata

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from sabiyarn_edge.text.grapheme import GraphemeHold

ASSIGNED = st.characters(exclude_categories=["Cs", "Cn"])
# Characters that make clusters with each other, so that random runs of them meet every rule.
JOINING = st.sampled_from(
    [
        *"aọ́ẹgKƙɓ \r\n\t.🇳🇬🇦🇿👩🏿👧",
        *"\u0301\u0323\u0300\u200d\u200c\ufe0f\u20e3❤©\u0e33ก",  # marks, joiners, keycaps, Thai
        *"क्षि\u0cccക്ഷ\u0d4e\u0600\u06dd\U000110bd",  # Devanagari, Kannada, Malayalam, prepended Arabic
        *"\u1100\ua960\u1161\u11a8\ud7b0\ud7cb각가\U000e0067\U000e007f",  # Hangul in parts and whole, tags
    ]
)
TEXTS = st.text(ASSIGNED | JOINING, max_size=30) | st.text(JOINING, max_size=30)
CUTS = st.lists(st.integers(0, 30), max_size=10)


def pieces_of(text, cuts):
    """What GraphemeHold gives when `text` arrives cut at `cuts`."""
    hold = GraphemeHold()
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [hold.push(text[a:b]) for a, b in itertools.pairwise(bounds)]
    return [*pieces, hold.flush()]


def borders_of(pieces):
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    return set(ends)


def true_borders(text):
    """Oracle: the regex library's \\X, which follows Unicode's tables."""
    return borders_of(regex.findall(r"\X", text))


@given(TEXTS, CUTS)
@example("a\u0301b", [1])
@example("\U0001f1f3\U0001f1ec\U0001f1ec\U0001f1ed", [1, 2, 3])
@example("\u0915\u094d\u0937", [1, 2])
@example("\u0915\u094d\u0301\u0937", [1, 2, 3])
@example("\u0600a\U000110bdb", [1, 2, 3])
@example("\u1100\u1161\u11a8\u1100\u1100\uac00", [1, 2, 3, 4])
@example("🇦🇿", [])  # the first and the last of the regional indicators
@example("\ua960\uac00", [])
@example("a\u0897", [])  # a mark of Unicode 16, which most Pythons do not know
def test_no_piece_splits_a_cluster_and_none_is_lost(text, cuts):
    for arriving in (cuts, range(len(text))):  # one by one, every border that is found shows
        pieces = pieces_of(text, arriving)
        assert "".join(pieces) == text
        assert borders_of(pieces) <= true_borders(text)


@given(
    st.text(
        st.sampled_from("aeiọẹṣgbGB ńǹṇɓɗƙ'.,!\u0301\u0300\u0323\u0304\n😀🇳🇬")
        | st.characters(max_codepoint=0x24F)
    )
)
def test_text_of_our_languages_waits_for_one_cluster_only(text):
    hold = GraphemeHold()
    shown = ""
    for index, char in enumerate(text):
        shown += hold.push(char)
        so_far = text[: index + 1]
        last_cluster = regex.findall(r"\X", so_far)[-1]
        stands_alone = unicodedata.category(last_cluster[-1]) in ("Cc", "Cf") and last_cluster != "\r"
        assert shown == (so_far if stands_alone else so_far[: -len(last_cluster)])


@pytest.mark.parametrize(
    ("arriving", "expected"),
    [
        (["ọ", "\u0300", "rọ̀"], ["", "", "ọ̀r"]),
        (["one\n", "two"], ["one\n", "tw"]),
        (["one\r", "\ntwo"], ["one", "\r\ntw"]),
        (["👩", "\u200d", "👧", "!"], ["", "", "", "👩\u200d👧"]),
        (["🇳", "🇬", "🇬", "🇭"], ["", "", "🇳🇬", ""]),
        (["🇳", "a"], ["", "🇳"]),
        (["a", "\xad", "b"], ["", "a\xad", ""]),
        (["a", "\u200b", "b"], ["", "a\u200b", ""]),  # formatting characters stand alone
        (["क\u094d", "a", "क"], ["", "क\u094d", "a"]),  # a virama joins the next letter of its script only
        (["", "", "a"], ["", "", ""]),
    ],
)
def test_examples(arriving, expected):
    hold = GraphemeHold()
    assert [hold.push(text) for text in arriving] == expected


def test_flush_begins_afresh():
    hold = GraphemeHold()
    assert hold.push("ab") == "a"
    assert hold.flush() == "b"
    assert hold.flush() == ""
    assert hold.push("\u0301c") == "\u0301"
    assert hold.push("🇳") == "c"
    assert hold.flush() == "🇳"
    assert [hold.push(char) for char in "🇬🇭a"] == ["", "", "🇬🇭"]


def test_the_cost_of_a_character_does_not_grow_with_what_is_held():
    hold = GraphemeHold()
    assert hold.push("a") == ""
    for _ in range(20_000):  # quadratic work here would take minutes
        assert hold.push("\u0301") == ""
    assert len(hold.flush()) == 20_001
