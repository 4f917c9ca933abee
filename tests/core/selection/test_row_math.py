"""argmax, log_softmax and the selection of the best, against NumPy; rows of every length around the vector width."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge import _core, _core_testing
from tests.core.selection import twins_scores as twins

LENGTHS = [1, 2, 3, 4, 15, 16, 17, 33, 1000, 52050]


@pytest.mark.parametrize("length", LENGTHS)
def test_argmax_is_the_lowest_index_of_the_largest(length):
    rng = np.random.default_rng(length)
    for _ in range(20):
        scores = rng.integers(-3, 3, length).astype(np.float32)
        assert _core_testing.argmax(scores) == int(np.argmax(scores))
        scores[rng.integers(length)] = np.inf
        assert _core_testing.argmax(scores) == int(np.argmax(scores))


@pytest.mark.parametrize("length", LENGTHS)
def test_log_softmax(length):
    rng = np.random.default_rng(length)
    scores = rng.normal(0, 5, length).astype(np.float32)
    scores[rng.random(length) < 0.2] = -np.inf
    scores[-1] = 1.0
    result = scores.copy()
    _core_testing.log_softmax(result)
    np.testing.assert_allclose(result, twins.log_softmax(scores), rtol=1e-6, atol=2e-6)
    assert _core.log_sum_exp(scores) == pytest.approx(np.log(np.exp(scores - scores.max()).sum()), abs=2e-6)


@pytest.mark.parametrize("function", [_core_testing.argmax, _core_testing.log_softmax, _core.log_sum_exp])
@pytest.mark.parametrize("place", [0, 5, 16, 17])
def test_nan_is_found_wherever_it_stands(function, place):
    scores = np.zeros(18, np.float32)
    scores[place] = np.nan
    with pytest.raises(ValueError, match=rf"^scores: row 0 holds NaN \(first at token id {place}\)"):
        function(scores)


def test_rows_without_probabilities_are_refused():
    with pytest.raises(ValueError, match="is -inf for every token"):
        _core_testing.log_softmax(np.full(5, -np.inf, np.float32))
    with pytest.raises(ValueError, match=r"holds \+inf"):
        _core_testing.log_softmax(np.array([0, np.inf], np.float32))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", ["random", "ties", "rising", "falling", "sparse"])
def test_select_top(length, kind):
    rng = np.random.default_rng(length)
    scores = {
        "random": rng.normal(size=length),
        "ties": rng.integers(0, 4, length),
        "rising": np.arange(length),
        "falling": -np.arange(length),
        "sparse": np.where(rng.random(length) < 0.01, 1.0, -np.inf),
    }[kind].astype(np.float32)
    for k in (1, 7, 50, 300):
        order = twins.best_first(scores)[:k]
        expected = [(float(scores[i]), int(i)) for i in order if scores[i] > -np.inf]
        assert _core_testing.select_top(scores, k) == expected
