"""Engine: the thread that runs all callers' works on one model.

It starts with the first call, sleeps while there is nothing to do, and ends when its generator was dropped and nothing
is left to do. Callers put works in and wait; how fast they read what comes out never paces it. At exit it ends after
the step at hand. A forked child gets a model of its own at its first call: threads do not survive a fork, so what the
parent's engine was doing does not go on there, and waiting for it is refused.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakSet

from ..errors import InvalidInputError, OutOfMemoryError
from ..system.own_process import OwnProcess
from ..system.process_memory import return_free_memory
from .decoder import Decoder
from .prefix_cache import PrefixCache
from .rows import Rows
from .scheduler import Scheduler
from .work import Work

__all__ = ["Engine"]

Result = TypeVar("Result")

_STEP_SECONDS = 10.0
"""How long an interrupted caller waits for the step at hand to end."""


class Engine:
    """Runs works from any number of threads on one Decoder.

    Args:
        decoder: the model.
        open_decoder: loads it again, in a forked child.
        prefix_cache_bytes: most that earlier texts' keys and values may take besides the KV cache.
        limit_bytes: most that the works at hand may need together; None: no limit.
        max_rows: most rows that they may have together; None: no limit.
    """

    def __init__(
        self,
        decoder: Decoder,
        open_decoder: Callable[[], Decoder],
        *,
        prefix_cache_bytes: int = 0,
        limit_bytes: int | None = None,
        max_rows: int | None = None,
    ) -> None:
        self._open_decoder, self._limit_bytes, self._max_rows = open_decoder, limit_bytes, max_rows
        self.prefix_cache = PrefixCache(prefix_cache_bytes)
        self.reserved: dict[str, int] = {}
        """Bytes of the limit that tables of callers take, by what they serve."""
        self._start(decoder)
        _ENGINES.add(self)

    def _start(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.rows = Rows(self.decoder.kv_cache, self.prefix_cache)
        self._scheduler = Scheduler(self.decoder, self.rows, self._limit_bytes, self._max_rows, self.reserved)
        # Reentrant: a garbage collection may call retire() anywhere, within the lock too.
        self._wake = threading.Condition(threading.RLock())
        self._arrived: list[Sequence[Work]] = []
        self._calls: list[_Call] = []
        self._thread: threading.Thread | None = None
        self._process = OwnProcess()
        self._closed = self._at_exit = self._retired = False

    @property
    def _forked(self) -> bool:
        """Whether this is a forked child's copy: its thread is the parent's, and its lock may be taken for ever."""
        return not self._process.is_this

    def submit(self, works: Sequence[Work], *, at_end: bool = False) -> None:
        """Have works run; returns at once.

        Args:
            at_end: the caller may be another work's `on_end`.

        Raises:
            InvalidInputError: the engine was closed, or the caller is another function that a work calls.
        """
        together = object()
        with self._ready(at_end=at_end):
            for work in works:
                work.process = self._process
                if work.group is None:
                    work.group = together
            self._arrived.append(works)

    def run(self, works: Sequence[Work]) -> None:
        """Run works and wait until all have ended. Ctrl-C abandons them.

        Raises:
            InvalidInputError: as `submit`.
            BaseException: the error of the first work that failed; the others have ended too.
        """
        self.submit(works)
        self.wait(works)

    def wait(self, works: Sequence[Work]) -> None:
        """Wait until all works, which were submitted, have ended. Ctrl-C abandons them. Raises: as `run`.

        In a child that was forked since, InvalidInputError.
        """
        try:
            for work in works:
                work.wait()
                work.raise_error()
        except BaseException:
            self.abandon(works)
            raise

    def abandon(self, works: Sequence[Work], *, wait: bool = True) -> None:
        """Forget works that nobody waits for any more, within a step.

        Args:
            wait: until the step at hand has ended.
        """
        for work in works:
            work.abandon()
        if not wait or threading.current_thread() is self._thread:
            return
        for work in works:
            if self._thread is not None and not self._forked and not work.is_foreign:
                work.wait(_STEP_SECONDS)

    def call(self, function: Callable[[], Result], *, alone: bool = False) -> Result:
        """Run a function on the engine's thread between two steps, and give what it gives.

        Args:
            alone: wait until no work is at hand.
        """
        call = _Call(function, alone)
        with self._ready():
            self._calls.append(call)
        call.ended.wait()
        if call.error is not None:
            raise call.error
        result: Result = call.result
        return result

    def forget(self, empty: Callable[[Decoder], None]) -> None:
        """Forget all texts, when nothing runs, and empty the KV cache.

        Args:
            empty: what to do with it.
        """

        def forget() -> None:
            self.rows.forget()
            empty(self.decoder)
            self.rows.reset()

        self.call(forget, alone=True)

    def cancel(self) -> None:
        """End all works within a step, with what they have."""
        arrived = [work for works in list(self._arrived) for work in works]
        for work in [*self._scheduler.live, *self._scheduler.waiting, *arrived]:
            work.cancel()

    def check_open(self) -> None:
        """Raise InvalidInputError if the engine was closed."""
        if self._closed:
            raise InvalidInputError("this generator was closed. Make a new one.")

    def close(self, *, at_exit: bool = False) -> None:
        """End the thread after the step at hand; works that have not ended fail. Calls after that are refused.

        Args:
            at_exit: leave works as they are: who waits for them is a daemon thread, which ends with the process.
        """
        if self._forked:
            self._closed = True
            return
        with self._wake:
            self._closed, self._at_exit = True, at_exit
            self._scheduler.called = True
            self._wake.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_STEP_SECONDS)

    def retire(self) -> None:
        """End the thread as soon as nothing is left to do, as nobody can call any more. Running works go on."""
        self._retired = True
        if self._thread is None or self._forked:
            return
        with self._wake:
            self._wake.notify()

    @property
    def num_live(self) -> int:
        """Works that are being run."""
        return len(self._scheduler.live)

    @property
    def num_waiting(self) -> int:
        """Works that wait for rows, for memory or for the next step."""
        return len(self._scheduler.waiting) + sum(map(len, self._arrived))

    # --- the engine's thread

    def _ready(self, *, at_end: bool = False) -> _Notified:
        """The lock, with the thread running; the thread is woken up when it is released."""
        self.check_open()
        if self._forked:
            _LEFT_TO_THE_PARENT.append(self.decoder)
            self._start(self._open_decoder())
        if threading.current_thread() is self._thread and not at_end:
            raise InvalidInputError(
                "a function that a call of this generator was given (logits_processor, stopping_criteria, ...) cannot "
                "call the same generator. Make a second generator."
            )
        return _Notified(self)

    def _started_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._work_on, name="sabiyarn_edge", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system gives none
            self._arrived.clear()
            self._calls.clear()
            raise OutOfMemoryError(
                f"the system gives this process no further thread ({error}): a thread needs up to 8 MiB of address "
                "space for its stack. End other programs, or raise the limit (ulimit -v, ulimit -u)."
            ) from error
        return thread

    def _work_on(self) -> None:
        while True:
            with self._wake:
                while not (self._arrived or self._calls or self._closed) and self._scheduler.idle:
                    if self._retired:
                        self._thread = None  # what still holds the engine may have it start another
                        return
                    self._wake.wait()
                self._scheduler.called = False
                arrived, self._arrived = self._arrived, []
                closed = self._closed
                idle = closed or (self._scheduler.idle and not arrived)
                calls = [call for call in self._calls if idle or not call.alone]
                self._calls = [] if idle else [call for call in self._calls if call.alone]
            for works in arrived:
                self._scheduler.add(works)
            if closed:
                if not self._at_exit:
                    self._end_all(calls)
                return
            for call in calls:
                call.run()
            try:
                if not self._scheduler.idle:
                    self._scheduler.step()
            except BaseException as error:  # a fault of ours: nobody may wait for ever
                self._fail_all(error)
            del arrived, calls
            if self._scheduler.idle and not self._arrived:
                self.rows.release_free()
                return_free_memory()

    def _end_all(self, calls: Sequence[_Call]) -> None:
        self._fail_all(InvalidInputError("the generator was closed. Make a new one."))
        for call in calls:
            call.run()

    def _fail_all(self, error: BaseException) -> None:
        for work in [*self._scheduler.live, *self._scheduler.waiting]:
            if not work.done:
                work.fail(self.rows, error)
        self._scheduler.live.clear()
        self._scheduler.waiting.clear()


class _Notified:
    """An engine's lock; wakes its thread, or starts it, when the block ends well."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        self._engine._wake.acquire()
        try:
            self._engine.check_open()
        except InvalidInputError:
            self._engine._wake.release()
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        engine = self._engine
        try:
            if kind is None:
                if engine._thread is None:
                    engine._thread = engine._started_thread()
                engine._scheduler.called = True
                engine._wake.notify()
        finally:
            engine._wake.release()


class _Call:
    """A function for the engine's thread, and what became of it."""

    def __init__(self, function: Callable[[], Any], alone: bool) -> None:
        self.function, self.alone, self.ended = function, alone, threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.function()
        except BaseException as error:
            self.error = error
        self.ended.set()


_ENGINES: WeakSet[Engine] = WeakSet()

_LEFT_TO_THE_PARENT: list[Decoder] = []
"""Decoders of a forked child's parent. Ending their sessions would wait for threads that the child does not have."""


@atexit.register
def _close_all() -> None:
    for engine in list(_ENGINES):
        engine.close(at_exit=True)
