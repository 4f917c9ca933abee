"""Runs many pieces of work side by side, and gives them in their order."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from ..engine.engine import Engine
from ..engine.work import SIGNAL_SECONDS, Work
from ..system.own_process import OwnProcess
from .window import Window

__all__ = ["EngineUnit", "Unit", "in_order"]


class Unit(Protocol):
    """A piece of work that starts, ends some time later, and then has an outcome."""

    rows: int
    """Rows of the KV cache that it takes."""
    positions: int
    """Positions that these have together, at most."""

    def start(self, ended: Callable[[], None]) -> None:
        """Begin; returns at once. It may be called from the thread on which another unit ends.

        Args:
            ended: called once, from any thread.
        """

    def outcome(self) -> Any:
        """What it gave, once it has ended. Raises: what it failed with."""

    def abandon(self) -> None:
        """Nobody waits for it any more."""


class EngineUnit:
    """A work of the engine.

    Args:
        positions: of all its rows.
        read: gives the outcome, once the work has ended without an error.
        together: names the job that it belongs to: works of one job do not mind waiting for one another.
    """

    def __init__(
        self, engine: Engine, work: Work, positions: int, read: Callable[[], Any], together: object
    ) -> None:
        self.rows, self.positions = work.num_rows, positions
        self._engine, self._work, self._read = engine, work, read
        work.group = together

    def start(self, ended: Callable[[], None]) -> None:
        self._work.on_end = ended
        self._engine.submit([self._work], at_end=True)

    def outcome(self) -> Any:
        self._work.raise_error()
        return self._read()

    def abandon(self) -> None:
        self._engine.abandon([self._work], wait=False)


Tag = TypeVar("Tag")


def in_order(units: Iterable[tuple[Unit | None, Tag]], window: Window) -> Iterator[tuple[Unit | None, Tag]]:
    """Run units, and yield each when it and all before it have ended.

    Args:
        units: (unit, what it is for), read as the window allows. None: there is nothing to run.
    """
    source = iter(units)
    line = _Line[Tag](window)
    process = OwnProcess()
    try:
        while True:
            if (following := line.next_ended()) is not None:
                yield following
            elif len(line) < window.most_waiting and (read := next(source, None)) is not None:
                line.add(read)  # read while others run, so that the next one starts as soon as there is room
            elif len(line):
                process.check()
                line.wait()
            else:
                return
    finally:
        line.abandon()


class _Line(Generic[Tag]):
    """Units in their order: those that wait for room stand behind those that were started.

    The one whose end makes room starts the next ones at once, from the thread on which it ended: nothing waits for the
    reader, who may be busy with records.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._lock = threading.RLock()  # start() may find that a unit has ended at once
        self._waiting: deque[tuple[Unit | None, Tag]] = deque()
        self._started: deque[tuple[Unit | None, Tag]] = deque()
        self._running: set[int] = set()  # id() of those in `_started` that have not ended
        self._first_runs = threading.Lock()  # held, but for a moment when the first one has ended
        self._first_runs.acquire()
        self._failure: Exception | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._started)

    def add(self, item: tuple[Unit | None, Tag]) -> None:
        """Take the next one, and start it if there is room. Raises: what starting raised."""
        with self._lock:
            self._waiting.append(item)
            self._start()

    def next_ended(self) -> tuple[Unit | None, Tag] | None:
        """Take the first one out, if it has ended. Raises: what starting another one raised."""
        if self._failure is not None:
            raise self._failure
        with self._lock:
            if self._started and id(self._started[0][0]) not in self._running:
                return self._started.popleft()
        return None

    def wait(self) -> None:
        """Until the first one has ended, or for a moment: Ctrl-C is noticed in between."""
        self._first_runs.acquire(timeout=SIGNAL_SECONDS)

    def abandon(self) -> None:
        """Start no more, and let go of those that run."""
        with self._lock:
            self._closed = True
            for unit, _ in self._started:
                if unit is not None and id(unit) in self._running:
                    unit.abandon()

    def _start(self) -> None:
        while self._waiting and not self._closed:
            unit = self._waiting[0][0]
            if unit is not None and not self._window.admits(unit.rows, unit.positions):
                return
            if unit is not None:
                self._window.start(unit.rows, unit.positions)
                self._running.add(id(unit))
            self._started.append(self._waiting.popleft())
            if unit is not None:
                unit.start(functools.partial(self._end, unit))

    def _end(self, unit: Unit) -> None:
        with self._lock:
            self._window.end(unit.rows, unit.positions)
            self._running.discard(id(unit))
            try:
                self._start()
            except Exception as error:  # the reader's to know
                self._failure = error
            # The reader can do nothing with others, and would only take a CPU and the interpreter from those that run.
            is_first = bool(self._started) and self._started[0][0] is unit
            if (is_first or self._failure is not None) and self._first_runs.locked():
                self._first_runs.release()
