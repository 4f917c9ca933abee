"""RayActors: the processes of a Ray cluster that answer a job's lines."""

from __future__ import annotations

import functools
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from ..errors import InvalidInputError, JobError, SabiYarnError, shown
from ..jobs.batch import DEFAULT_ROWS
from ..jobs.dispatch import BLOCK_ROWS, BLOCKS_EACH, MOST_LOSSES, Dispatch, cluster_window
from ..jobs.job import Record
from ..jobs.lines import Request
from ..jobs.window import Window
from ..options.checks import integer
from ..system.cpus import usable_cpus
from .cluster import connected
from .worker import Worker

__all__ = ["RayActors"]

_START_SECONDS = 300.0
"""For a first actor to start and load, and for another when all are lost."""
_POLL_SECONDS = 1.0


class RayActors:
    """Actors that answer the lines of `run_batch`. Each loads the model once; one that is lost is replaced.

    Args:
        model: a model folder that every node has under this path, or nano.
        address: of the cluster: "auto", host:port or ray://host:port; None: RAY_ADDRESS, or else this machine.
        actors: how many; None: as many as the cluster has CPUs for.
        num_cpus: of each; it computes with so many threads.
        rows: most lines that run at once in each.
        load: further arguments of `EdgeGenerator.from_pretrained`, but num_threads.

    Raises:
        InvalidInputError: an argument is not allowed.
    """

    def __init__(
        self,
        model: str | Path = "nano",
        *,
        address: str | None = None,
        actors: int | None = None,
        num_cpus: int = 1,
        rows: int = DEFAULT_ROWS,
        **load: Any,
    ) -> None:
        at_least_one = integer(at_least=1)
        self._num_cpus = at_least_one("num_cpus", num_cpus)
        self._rows = at_least_one("rows", rows)
        self._wanted = None if actors is None else at_least_one("actors", actors)
        self._address = address
        model = str(Path(model).absolute()) if Path(model).is_dir() else str(model)
        self._load = {**load, "path": model, "num_threads": self._num_cpus}
        self.window = Window(1, 1, 1)
        """How much is given out at once; known once the actors are."""
        self._stack = ExitStack()
        self._forget()

    def _forget(self) -> None:
        """Be as before the first job."""
        self._dispatch: Dispatch[_RemoteUnit] = Dispatch(BLOCK_ROWS * self._rows)
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._actors: dict[int, Any] = {}
        self._units: dict[int, _RemoteUnit] = {}
        self._started = self._failed_starts = 0
        self._last_there = time.monotonic()
        self._failure: Exception | None = None

    def begin(
        self, identity: Mapping[str, Any], arguments: Mapping[str, Any], seed: int
    ) -> Callable[[Request, int], _RemoteUnit]:
        """Start the actors; see Workers.

        Raises:
            JobError: there is no cluster, or it has not so many CPUs.
        """
        self._forget()
        cpus = usable_cpus() if self._wanted is None else self._wanted * self._num_cpus
        self._stack.enter_context(connected(self._address, cpus=cpus))
        room = math.floor(ray.cluster_resources().get("CPU", 0) / self._num_cpus)
        count = room if self._wanted is None else self._wanted
        if not 1 <= count <= room:
            raise JobError(
                f"{count or 1} actors of {self._num_cpus} CPUs are wanted, but the cluster has room for {room}. Ask "
                "for fewer, or for fewer CPUs each."
            )
        self.window = cluster_window(count, BLOCK_ROWS * self._rows)
        actor = ray.remote(
            num_cpus=self._num_cpus, max_concurrency=BLOCKS_EACH, max_restarts=0, scheduling_strategy="SPREAD"
        )(Worker)
        self._new = functools.partial(actor.remote, self._load, dict(arguments), seed, self._rows)
        self._identity = dict(identity)
        for _ in range(count):
            self._start_actor()
        thread = threading.Thread(target=self._run, name="sabiyarn_edge_ray", daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(self._events.put, None)
        return functools.partial(_RemoteUnit, self)

    def close(self) -> None:
        """End the actors."""
        self._stack.close()

    def submit(self, unit: _RemoteUnit) -> None:
        """Have a line answered."""
        self._events.put(functools.partial(self._add, unit))

    # --- In the thread of this object, which alone knows of actors and lines

    def _run(self) -> None:
        while True:
            try:
                if not self._handle_events():
                    break
                self._assign()
            except Exception as error:
                self._fail(error)
        for handle in self._actors.values():
            with suppress(ray.exceptions.RayError):
                ray.kill(handle)

    def _handle_events(self) -> bool:
        """Wait for an event, and handle all that are there. Returns: whether to go on."""
        with suppress(queue.Empty):
            event = self._events.get(timeout=_POLL_SECONDS)
            while event is not None:
                event()
                event = self._events.get_nowait()
            return False
        if self._dispatch.workers:
            self._last_there = time.monotonic()
        elif time.monotonic() - self._last_there > _START_SECONDS and self._failure is None:
            raise JobError(
                f"no actor was ready within {_START_SECONDS:.0f} s. See `ray status`: other jobs may hold the CPUs."
            )
        return True

    def _add(self, unit: _RemoteUnit) -> None:
        if self._failure is not None:
            unit.end(self._failure)
            return
        self._units[id(unit)] = unit
        self._dispatch.add(unit)

    def _start_actor(self) -> None:
        key, self._started = self._started, self._started + 1
        handle = self._actors[key] = self._new()
        self._when_there(handle.load.remote(self._identity), functools.partial(self._joined, key))

    def _when_there(self, reference: Any, then: Callable[[Any], None]) -> None:
        reference.future().add_done_callback(lambda future: self._events.put(lambda: then(future)))

    def _joined(self, key: int, future: Any) -> None:
        error = future.exception()
        if error is None:
            self._failed_starts = 0
            self._dispatch.join(key)
            return
        _raise_own(error)
        self._failed_starts += 1
        if self._failed_starts > MOST_LOSSES:
            raise JobError(f"actors end while they load the model: {_one_line(error)}")
        self._lost(key)

    def _lost(self, key: int) -> None:
        if (handle := self._actors.pop(key, None)) is None:
            return
        with suppress(ray.exceptions.RayError):
            ray.kill(handle)  # one that cannot be reached may still be there
        self._start_actor()
        for unit in self._dispatch.leave(key):
            raise JobError(
                f"the worker of the line with the id {shown(unit.request.id)} was lost {MOST_LOSSES} times, at last "
                "with no other line. It may need more memory than its node has: give fewer rows, or a memory limit."
            )

    def _assign(self) -> None:
        while self._failure is None and (block := self._dispatch.next()) is not None:
            lines = [(unit.request, unit.line) for unit in block.items]
            reference = self._actors[block.worker].answer.remote(lines)  # type: ignore[index]
            self._when_there(reference, functools.partial(self._answered, block.number, block.worker))

    def _answered(self, number: int, key: Any, future: Any) -> None:
        error = future.exception()
        if error is not None:
            _raise_own(error)
            self._lost(key)
            return
        block = self._dispatch.done(number)
        if block is not None:
            for unit, record in zip(block.items, future.result(), strict=True):
                self._units.pop(id(unit), None)
                unit.end(record)

    def _fail(self, error: Exception) -> None:
        """End all lines with an error, and those to come."""
        self._failure = error
        for unit in self._units.values():
            unit.end(error)
        self._units.clear()


class _RemoteUnit:
    """A line that an actor answers; its outcome is a record."""

    rows, positions = 1, 0

    def __init__(self, actors: RayActors, request: Request, line: int) -> None:
        self.request, self.line = request, line
        self._actors = actors
        self._outcome: Record | Exception | None = None

    def start(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._actors.submit(self)

    def end(self, outcome: Record | Exception) -> None:
        """Say what it gave."""
        self._outcome = outcome
        self._ended()

    def outcome(self) -> Record:
        assert self._outcome is not None
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def abandon(self) -> None:
        """It ends with the actors."""


def _raise_own(error: BaseException) -> None:
    """Raise what the actor's code raised. What Ray says of a lost actor returns."""
    if not isinstance(error, RayTaskError):
        return
    cause = error.cause
    if isinstance(cause, InvalidInputError) or not isinstance(cause, SabiYarnError):
        raise JobError(f"an actor failed: {_one_line(cause)}") from error
    raise cause


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
