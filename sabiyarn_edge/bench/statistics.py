"""Summarizes many timings in few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles

__all__ = ["summary"]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, 10th and 90th percentile, and the number of values.

    With one value all three are that value.
    """
    cuts = quantiles(values, n=10, method="inclusive") if len(values) > 1 else [values[0]] * 9
    return {"median": median(values), "p10": cuts[0], "p90": cuts[-1], "count": len(values)}
