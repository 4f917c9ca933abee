"""The processors that need no sampling, against their NumPy twins: bit for bit, since each rounds once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge import _core_testing
from tests.core.selection import twins_scores as twins

VOCAB = 11

token = st.integers(0, VOCAB - 1)
ids = st.lists(token, min_size=1, max_size=12)
# Few values, so that ties and zeros occur; a removed token now and then.
score = st.one_of(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 3.0, -np.inf]), st.floats(-20, 20, width=32))
rows = st.lists(score, min_size=VOCAB, max_size=VOCAB).map(lambda row: np.array(row, np.float32))
positive = st.sampled_from([0.5, 0.8, 1.2, 2.0]).map(np.float32)

same = np.testing.assert_array_equal
property_test = settings(max_examples=150)


def in_place(function, scores, *args):
    result = scores.copy()
    function(result, *args)
    return result


@property_test
@given(rows, ids, positive, st.integers(0, 6))
def test_repetition_penalty(scores, ids, penalty, window):
    ours = in_place(_core_testing.apply_repetition_penalty, scores, ids, penalty, window)
    same(ours, twins.repetition_penalty(scores, ids, penalty, window))


@property_test
@given(rows, st.lists(token, max_size=12), st.sampled_from([-0.5, 0.0, 0.25]), st.sampled_from([0.0, 0.75]))
def test_openai_penalties(scores, generated, frequency, presence):
    frequency, presence = np.float32(frequency), np.float32(presence)
    ours = in_place(_core_testing.apply_openai_penalties, scores, generated, frequency, presence)
    same(ours, twins.openai_penalties(scores, generated, frequency, presence))


@property_test
@given(rows, st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(1, 4))
def test_repeated_ngrams(scores, ids, size):
    same(
        in_place(_core_testing.ban_repeated_ngrams, scores, ids, size),
        twins.repeated_ngrams(scores, ids, size),
    )


few = st.lists(st.integers(0, 2), min_size=1, max_size=3)


@property_test
@given(rows, st.lists(st.integers(0, 2), min_size=1, max_size=6), st.lists(few, min_size=1, max_size=4))
def test_bad_words(scores, ids, words):
    same(in_place(_core_testing.ban_bad_words, scores, ids, words), twins.bad_words(scores, ids, words))


@property_test
@given(
    rows,
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
    st.dictionaries(few.map(tuple), st.sampled_from([-1.5, 0.1, 2.0]), min_size=1, max_size=4),
)
def test_sequence_bias(scores, ids, biases):
    biases = list(biases.items())
    ours = in_place(_core_testing.apply_sequence_bias, scores, ids, biases)
    same(ours, twins.sequence_bias(scores, ids, biases))


@property_test
@given(rows, st.lists(token, min_size=1))
def test_keep_only(scores, allowed):
    same(in_place(_core_testing.keep_only, scores, allowed), twins.keep_only(scores, allowed))


def test_a_word_longer_than_the_row_is_ignored_as_the_reference_does():
    scores = np.zeros(VOCAB, np.float32)
    _core_testing.ban_bad_words(
        scores, [1], [[1, 2]]
    )  # the row [1] would be completed by 2, but has fewer ids than the word
    assert scores[2] == 0
    _core_testing.ban_bad_words(scores, [0, 1], [[1, 2]])
    assert scores[2] == -np.inf


@pytest.mark.parametrize(
    "scores", [np.zeros((2, 3), np.float32), np.zeros(0, np.float32)], ids=["matrix", "empty"]
)
def test_anything_but_a_row_is_refused(scores):
    with pytest.raises(ValueError, match="one row"):
        _core_testing.keep_only(scores, [0])
