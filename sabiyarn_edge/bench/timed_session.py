"""Measure how much of a step is spent outside onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..engine.decoder import Decoder

__all__ = ["TimedSession", "timed"]


class TimedSession:
    """An onnxruntime session that notes when each of its runs began and ended.

    Attributes:
        runs: (start, end) of each run, `time.perf_counter()`.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.runs: list[tuple[float, float]] = []

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        started = time.perf_counter()
        self._session.run_with_iobinding(binding, options)
        self.runs.append((started, time.perf_counter()))

    def between_runs(self) -> list[float]:
        """Seconds from the end of each run to the start of the next."""
        return [after[0] - before[1] for before, after in zip(self.runs, self.runs[1:], strict=False)]


@contextmanager
def timed(decoder: Decoder) -> Iterator[TimedSession]:
    """Let all runs of `decoder` go through a TimedSession for a while."""
    session = decoder.runner.graph
    watched = TimedSession(session)
    decoder.runner.graph = watched
    try:
        yield watched
    finally:
        decoder.runner.graph = session
