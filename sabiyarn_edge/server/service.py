"""Service: the models that are served, and whether the server takes requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..errors import shown
from .errors import HttpError
from .metrics import Metrics

if TYPE_CHECKING:
    from ..generator import EdgeGenerator

__all__ = ["ServedModel", "Service", "Settings"]

_LEAST_SECONDS = 1e-3
"""Of a text whose request's time is over."""
_CANCELLING_SECONDS = 3.0
"""How long a drained server waits for requests to end with what they have."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server allows."""

    parallel: int
    """Most rows of a model at once: prompts times their beams or choices."""
    max_queue: int
    """Most rows that wait for these."""
    timeout: float
    """Seconds after which a request ends, waiting included."""
    max_tokens_limit: int | None = None
    """Most new tokens that a request may ask for; None: as many as there are positions."""
    api_keys: tuple[str, ...] = ()
    """Empty: none is asked for."""
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    """Names to which a server without keys answers, beside its own."""
    log_prompts: bool = False


class ServedModel:
    """One model under its name.

    Args:
        name: what requests call it.
        generator: loaded with max_batch_size, so that rows beyond it wait.
        settings: of the server.
    """

    def __init__(self, name: str, generator: EdgeGenerator, settings: Settings) -> None:
        self.name, self.generator, self._settings = name, generator, settings
        _ = generator.tasks  # read now: a damaged tasks.json ends the server at its start, not a request
        self.created = int(time.time())
        self._rows = 0

    def admit(self, rows: int, metrics: Metrics, param: str | None = None) -> Callable[[], None]:
        """Count a request's rows in; they run, or wait for others to end.

        Args:
            param: the field that asks for so many.

        Returns:
            What to call when the request has ended; a second call does nothing.

        Raises:
            HttpError: it needs more rows than there are, or too many wait already.
        """
        parallel, queue = self._settings.parallel, self._settings.max_queue
        if rows > parallel:
            raise HttpError(
                400,
                f"the request needs {rows} rows (prompts times n, or times num_beams), but the server has {parallel}. "
                "Ask for fewer at once.",
                param=param,
            )
        if self._rows + rows > parallel + queue:
            metrics.refused[self.name] += 1
            raise HttpError.later(
                429,
                f"{self._rows} rows run or wait, and the request needs {rows}; at most {parallel + queue} may. "
                "Try again later.",
                code="queue_full",
            )
        self._rows += rows
        left = [rows]

        def leave() -> None:
            self._rows -= left[0]
            left[0] = 0

        return leave

    @property
    def is_full(self) -> bool:
        """Whether some of the rows that were counted in wait for others to end."""
        return self._rows > self._settings.parallel

    @contextmanager
    def admitted(self, rows: int, metrics: Metrics) -> Iterator[None]:
        """As `admit`, for a block."""
        leave = self.admit(rows, metrics)
        try:
            yield
        finally:
            leave()


class Service:
    """Models and state of one server.

    Args:
        names: of the models, the one that requests without a name mean first.
        load: loads them all and gives them by name; called in a thread of its own.
        settings: what is allowed.
    """

    def __init__(
        self, names: list[str], load: Callable[[], Mapping[str, ServedModel]], settings: Settings
    ) -> None:
        self.names, self.settings = names, settings
        self.models: Mapping[str, ServedModel] = {}
        self.metrics = Metrics(names)
        self.state: Literal["loading", "ready", "draining"] = "loading"
        self._load = load
        self._requests = 0
        self._compiler = ThreadPoolExecutor(1, "sabiyarn_edge_compiler")
        self._whole: set[asyncio.Timeout] = set()
        """Of works that give nothing before their end."""
        self._drained = False

    async def load(self) -> None:
        """Load the models. Raises: what loading raises."""
        self.models = await asyncio.to_thread(self._load)
        if self.state == "loading":
            self.state = "ready"

    async def drain(self, seconds: float) -> None:
        """Take no more requests and wait until those at hand have ended; cancel what has not after so long."""
        self.state = "draining"
        end = time.monotonic() + seconds
        while self._requests and time.monotonic() < end:
            await asyncio.sleep(0.02)
        self._drained = True
        now = asyncio.get_running_loop().time()
        for timeout in self._whole:
            if not timeout.expired():  # else it is being cancelled already
                timeout.reschedule(now)
        end = time.monotonic() + _CANCELLING_SECONDS
        while True:  # again: a request of many texts may be about to begin one
            for model in self.models.values():
                model.generator.cancel()
            if not self._requests or time.monotonic() > end:
                return
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """End the models' threads."""
        self._compiler.shutdown(wait=False, cancel_futures=True)
        for model in self.models.values():
            model.generator.close()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request that is answered, so that draining waits for it.

        Raises:
            HttpError: the server is loading or draining.
        """
        if self.state != "ready":
            raise self._not_taken()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def end_of_time(self) -> float:
        """When the time of a request that begins now is over, as time.monotonic() tells it."""
        return time.monotonic() + self.settings.timeout

    def seconds_until(self, end: float) -> float:
        """What is left of a request's time, at least a moment: what is begun then is cut at once.

        Args:
            end: as `end_of_time` gave it.
        """
        return _LEAST_SECONDS if self._drained else max(end - time.monotonic(), _LEAST_SECONDS)

    async def whole(self, work: Awaitable[Result], end: float) -> Result:
        """Await what gives nothing before it is done.

        Args:
            end: as `end_of_time` gave it.

        Raises:
            HttpError: the time was over before, or the server ends.
        """
        try:
            async with asyncio.timeout(self.seconds_until(end)) as timeout:
                self._whole.add(timeout)
                try:
                    return await work
                finally:
                    self._whole.discard(timeout)
        except TimeoutError:
            if self._drained:
                raise self._not_taken() from None
            raise HttpError.later(
                503,
                f"the request's time ({self.settings.timeout:g} s) was over before all was computed. Send fewer or "
                "shorter texts at once.",
                code="timeout",
            ) from None

    def _not_taken(self) -> HttpError:
        return HttpError.later(503, f"the server is {self.state}. Try again later.", code=self.state)

    async def prepare(self, work: Callable[[], Result], *, compiles: bool = False) -> Result:
        """Do what a request needs before it runs, beside the event loop. A cancelled task does not wait for its end.

        Args:
            work: takes milliseconds, and holds the GIL for few at a time.
            compiles: the work may take seconds. One such runs at a time, and they wait for one another: they take one
                CPU at most from the models.

        Raises:
            HttpError: the request's time was over before.
            Exception: what the work raises.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.settings.timeout):
                return await loop.run_in_executor(self._compiler if compiles else None, work)
        except TimeoutError:
            raise HttpError.later(
                503, "the request's time was over before it was prepared. Try again later.", code="timeout"
            ) from None

    def model(self, name: str | None) -> ServedModel:
        """The model that a request names; without a name the first.

        Raises:
            HttpError: there is no such model.
        """
        found = self.models.get(self.names[0] if name is None else name)
        if found is None:
            raise HttpError(
                404,
                f"there is no model {shown(name)}; the models are {', '.join(self.names)}.",
                param="model",
                code="model_not_found",
            )
        return found

    def gauges(self) -> dict[str, dict[str, Any]]:
        """What each model holds now."""
        found = {}
        for name, model in self.models.items():
            usage = model.generator.memory_usage()
            found[name] = {
                "running": model.generator.num_running,
                "waiting": model.generator.num_waiting,
                "kv_cache_bytes": usage["kv_cache"],
                "prefix_cache_bytes": usage["prefix_cache"],
            }
        return found
