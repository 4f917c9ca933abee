"""How much of a step is not onnxruntime's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..engine.decoder import Decoder

__all__ = ["TimedSession", "timed"]


class TimedSession:
    """An onnxruntime session that adds up the time spent in its runs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.seconds = 0.0

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        started = time.perf_counter()
        self._session.run_with_iobinding(binding, options)
        self.seconds += time.perf_counter() - started


@contextmanager
def timed(session: Decoder) -> Iterator[TimedSession]:
    """Let all runs of `session` go through a TimedSession for a while."""
    watched, runner = TimedSession(session._session), session.runner
    session.runner = session._make_runner(watched)
    try:
        yield watched
    finally:
        session.runner = runner
