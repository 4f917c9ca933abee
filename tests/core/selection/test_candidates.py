"""The filters of sampling against their NumPy twins: what stays must be equal but for probabilities at the border."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge import _core_testing
from tests.core.selection import twins_scores as twins

BORDER = 1e-5  # a threshold moved by this much must account for every difference


def make_rows():
    """Rows as models and processors leave them: peaked, flat, with ties, with removed tokens; two sizes."""
    rng = np.random.default_rng(5)
    for size in (7, 40, 3000):
        for scale in (0.3, 2.0, 8.0):
            normal = rng.normal(0, scale, size).astype(np.float32)
            yield normal
            yield np.round(normal * 2) / 2  # ties
            removed = normal.copy()
            removed[rng.random(size) < 0.6] = -np.inf
            removed[rng.integers(size)] = 1.0
            yield removed
        yield np.zeros(size, np.float32)
        one = np.full(size, -np.inf, np.float32)
        one[size // 2] = -3.0
        yield one


ROWS = list(make_rows())

FILTERS = [
    (_core_testing.filter_top_p, twins.top_p, [0.001, 0.3, 0.9, 0.999]),
    (_core_testing.filter_min_p, twins.min_p, [0.0, 0.05, 0.5, 1.0]),
    (_core_testing.filter_typical_p, twins.typical_p, [0.01, 0.3, 0.9, 0.999]),
    (_core_testing.filter_epsilon, twins.epsilon, [1e-5, 1e-3, 0.1]),
    (_core_testing.filter_eta, twins.eta, [1e-5, 1e-3, 0.1]),
]


@pytest.mark.parametrize("keep", [1, 2, 5])
@pytest.mark.parametrize(
    ("ours", "twin", "values"), FILTERS, ids=lambda value: getattr(value, "__name__", "")
)
def test_filter_keeps_what_its_twin_keeps(ours, twin, values, keep):
    for scores in ROWS:
        for value in values:
            result = scores.copy()
            ours(result, value, keep)
            expected = twin(scores, value, keep)
            if not np.array_equal(result, expected):
                # Rounding at the border: what stays must lie between the results for neighbouring thresholds.
                near = [twin(scores, value * (1 + sign * BORDER), keep) > -np.inf for sign in (-1, 1)]
                kept = result > -np.inf
                assert np.all(kept <= (near[0] | near[1])), (value, len(scores))
                assert np.all(kept >= (near[0] & near[1])), (value, len(scores))
                np.testing.assert_array_equal(result[kept], scores[kept])


@pytest.mark.parametrize("k", [1, 2, 50, 2999, 5000])
def test_top_k(k):
    for scores in ROWS:
        result = scores.copy()
        _core_testing.filter_top_k(result, k)
        np.testing.assert_array_equal(result, twins.top_k(scores, k))


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.3, 9.0])
def test_top_k_after_temperature_keeps_what_the_division_makes_equal(temperature):
    """Neighbouring floats can have one quotient: then they tie with the k-th and stay."""
    start = np.float32(-1.7)
    neighbours = [start]
    for _ in range(63):
        neighbours.append(np.nextafter(neighbours[-1], np.float32(2)))
    for scores in [np.array(neighbours, np.float32), np.array(neighbours[::-1], np.float32), *ROWS]:
        for k in (1, 3, 10):
            result = scores.copy()
            _core_testing.filter_top_k(result, k, temperature)
            np.testing.assert_array_equal(result, twins.top_k(scores / np.float32(temperature), k))


def test_renormalize_is_log_softmax_of_what_is_left():
    for scores in ROWS:
        result = scores.copy()
        _core_testing.renormalize(result)
        np.testing.assert_allclose(result, twins.log_softmax(scores), rtol=2e-6, atol=2e-6)


def test_equal_scores_at_the_border_of_top_p_go_to_the_lower_ids():
    scores = np.zeros(8, np.float32)
    _core_testing.filter_top_p(scores, 0.5)
    assert np.flatnonzero(scores == 0).tolist() == [0, 1, 2, 3]


def test_a_probability_at_the_limit_stays():
    """As in transformers, which removes what is below it: the limit is the second token's own weight."""
    tried = 0
    for second in np.linspace(-3, -0.1, 30, dtype=np.float32):
        scores = np.array([0, second, second - 1], np.float32)
        weights = _core_testing.exp_float(scores).astype(np.float64)
        found = scores.copy()
        _core_testing.filter_min_p(found, float(weights[1]))
        assert (found > -np.inf).tolist() == [True, True, False]
        total = weights.sum()
        epsilon = float(weights[1] / total)
        if epsilon * total == weights[1]:  # else the quotient was rounded to another number
            found = scores.copy()
            _core_testing.filter_epsilon(found, epsilon)
            assert (found > -np.inf).tolist() == [True, True, False]
            tried += 1
    assert tried > 0
