"""Paired bootstrap: how sure a metric of a test set is, and a difference between two models on it.

Source: P. Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004. The p-value is
sacrebleu's: how often a resampled difference is farther from the mean of all of them than the measured one is from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "estimates"]

SEED = 12345
_TOGETHER = 2**22  # numbers that are held at once


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric of one model; None where nothing was measured."""

    value: float | None
    low: float | None
    """2.5 % of the resampled test sets give less."""
    high: float | None
    """2.5 % give more."""
    p_value: float | None = None
    """Chance of such a difference from the first model without a real one; None for the first."""


def estimates(
    statistics: Mapping[str, NDArray[np.float64]],
    metric: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    samples: int,
) -> dict[str, Estimate]:
    """Estimate a metric that is a function of sums over the texts.

    Args:
        statistics: of each model float64 [texts, numbers], the first model first.
        metric: from sums [..., numbers] to values [...]; NaN where nothing was measured. Such test sets are skipped.
        samples: resampled test sets; the same for all models.
    """
    values = {name: float(metric(table.sum(axis=0))) for name, table in statistics.items()}
    drawn = _resampled(statistics, metric, samples)
    first = next(iter(statistics))
    found = {}
    for name, value in values.items():
        own = _measured(drawn[name])
        low, high = np.percentile(own, [2.5, 97.5]).tolist() if own.size else (None, None)
        differences = _measured(drawn[name] - drawn[first])
        p_value = None
        if name != first and differences.size:
            farther = np.abs(differences - differences.mean()) >= abs(value - values[first])
            p_value = float((farther.sum() + 1) / (differences.size + 1))
        found[name] = Estimate(value=None if np.isnan(value) else value, low=low, high=high, p_value=p_value)
    return found


def _measured(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _resampled(
    statistics: Mapping[str, NDArray[np.float64]],
    metric: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    samples: int,
) -> dict[str, NDArray[np.float64]]:
    """The metric of each model on test sets that are drawn with replacement."""
    tables = list(statistics.values())
    texts, numbers = tables[0].shape
    rng = np.random.default_rng(SEED)
    step = max(_TOGETHER // (texts * numbers), 1)
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in statistics}
    for first in range(0, samples, step):
        chosen = rng.integers(0, texts, (min(step, samples - first), texts))
        for name, table in statistics.items():
            drawn[name].append(metric(table[chosen].sum(axis=1)))
    return {name: np.concatenate(parts) for name, parts in drawn.items()}
