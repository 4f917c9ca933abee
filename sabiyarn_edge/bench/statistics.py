"""Many timings in few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles

__all__ = ["summary"]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile and how many values they come from.

    With one value all three are that value.
    """
    cuts = quantiles(values, n=10, method="inclusive") if len(values) > 1 else [values[0]] * 9
    return {"median": median(values), "p10": cuts[0], "p90": cuts[-1], "count": len(values)}
