"""Runs many pieces of work side by side, and gives them in their order."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from ..engine.engine import Engine
from ..engine.work import SIGNAL_SECONDS, Work
from .window import Window

__all__ = ["EngineUnit", "Unit", "in_order"]


class Unit(Protocol):
    """A piece of work that starts, ends some time later, and then has an outcome."""

    rows: int
    """Rows of the KV cache that it takes."""
    positions: int
    """Positions that these have together, at most."""

    def start(self, ended: Callable[[], None]) -> None:
        """Begin; returns at once. `ended` is called once, from any thread."""

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
        self._engine.submit([self._work])

    def outcome(self) -> Any:
        if self._work.error is not None:
            raise self._work.error
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
    ready: deque[tuple[Unit | None, Tag]] = deque()  # read, and waiting for room
    order: deque[tuple[Unit | None, Tag]] = deque()  # started, not yet yielded
    running: set[int] = set()  # id() of those in `order` that have not ended
    ended: queue.SimpleQueue[Unit] = queue.SimpleQueue()
    exhausted = False

    def take(unit: Unit) -> None:
        window.end(unit.rows, unit.positions)
        running.discard(id(unit))

    def start(unit: Unit) -> None:
        window.start(unit.rows, unit.positions)
        running.add(id(unit))
        unit.start(lambda: ended.put(unit))

    try:
        while True:
            while not ended.empty():
                take(ended.get())
            while ready and ((unit := ready[0][0]) is None or window.admits(unit.rows, unit.positions)):
                if unit is not None:
                    start(unit)
                order.append(ready.popleft())
            if order and id(order[0][0]) not in running:
                yield order.popleft()
            elif not exhausted and len(order) + len(ready) < window.most_waiting:
                # Read while others run, so that the next one starts as soon as there is room.
                following = next(source, None)
                if following is None:
                    exhausted = True
                else:
                    ready.append(following)
            elif order:
                with suppress(queue.Empty):
                    take(ended.get(timeout=SIGNAL_SECONDS))  # Ctrl-C is noticed in between
            else:
                return
    finally:
        for unit, _ in order:
            if unit is not None and id(unit) in running:
                unit.abandon()
