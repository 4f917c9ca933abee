"""Paired bootstrap beside plain loops, and beside what it must be."""

from __future__ import annotations

import numpy as np

from sabiyarn_edge.evaluate.bootstrap import SEED, Estimate, estimates
from sabiyarn_edge.evaluate.quality import perplexity_metric


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def test_intervals_are_those_of_a_loop_over_resampled_sets() -> None:
    rng = np.random.default_rng(1)
    texts, samples = 40, 200
    tables = {
        name: np.stack([rng.random(texts) + shift, np.ones(texts)], axis=1)
        for name, shift in (("one", 0.0), ("other", 0.2))
    }
    found = estimates(tables, mean, samples)
    chosen = np.random.default_rng(SEED).integers(0, texts, (samples, texts))
    drawn = {name: [table[row, 0].mean() for row in chosen] for name, table in tables.items()}
    for name, estimate in found.items():
        assert np.isclose(estimate.value, tables[name][:, 0].mean())
        np.testing.assert_allclose([estimate.low, estimate.high], np.percentile(drawn[name], [2.5, 97.5]))
    differences = np.subtract(drawn["other"], drawn["one"])
    measured = abs(found["other"].value - found["one"].value)
    farther = sum(abs(d - differences.mean()) >= measured for d in differences)
    assert found["other"].p_value == (farther + 1) / (samples + 1)
    assert found["one"].p_value is None


def test_resampled_sets_in_which_nothing_was_measured_are_skipped() -> None:
    sums = np.zeros((4, 2))
    sums[3] = -6.0, 3.0  # log-probability and tokens of the one text that was measured
    [perplexity] = perplexity_metric({"m": sums}, 50).estimates.values()
    assert perplexity.value == perplexity.low == perplexity.high == np.exp(2.0)
    nothing = perplexity_metric({"m": sums[:3], "other": sums[:3]}, 50).estimates
    assert nothing["m"] == nothing["other"] == Estimate(value=None, low=None, high=None)
    # The first model was measured on text 3 only: sets without it say nothing of the difference.
    both = perplexity_metric({"m": sums, "other": np.full((4, 2), (-9.0, 3.0))}, 50).estimates
    assert both["other"].p_value == 1 / (count_with(3, texts=4, samples=50) + 1)


def count_with(text: int, *, texts: int, samples: int) -> int:
    chosen = np.random.default_rng(SEED).integers(0, texts, (samples, texts))
    return sum(text in row for row in chosen)


def test_equal_models_do_not_differ_and_far_ones_do() -> None:
    one = np.stack([np.arange(100) % 2, np.ones(100)], axis=1).astype(float)
    far = np.stack([np.arange(100) % 10 > 0, np.ones(100)], axis=1).astype(float)
    found = estimates({"one": one, "same": one.copy(), "far": far}, mean, 500)
    assert found["same"].p_value == 1.0
    assert found["far"].p_value < 0.05
    assert found["one"].low < 0.5 < found["one"].high
