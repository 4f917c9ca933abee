"""Progress of an export, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

__all__ = ["Progress"]


class Progress:
    """Shows one bar per stage and keeps their times."""

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self.seconds: dict[str, float] = {}
        """Stage -> how long it took."""

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "step") -> Iterator[Callable[[int], object]]:
        """A stage of `total` units; gives the function to call with the number of units just done."""
        start = time.perf_counter()
        scale = unit == "B"
        with tqdm(
            total=total,
            desc=f"{name:<20}",
            unit=unit,
            unit_scale=scale,
            unit_divisor=1024 if scale else 1000,
            disable=not self._show,
            mininterval=0.1 if sys.stderr.isatty() else 5.0,  # s; a log file wants few lines
        ) as bar:
            yield bar.update
        self.seconds[name] = round(time.perf_counter() - start, 3)
