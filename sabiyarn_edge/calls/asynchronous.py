"""generate and stream for asyncio: the event loop goes on while the engine works, and no thread waits.

The only module that imports asyncio, which its callers have imported before.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from weakref import WeakSet

from ..engine.engine import Engine
from ..engine.generation import Generation
from ..engine.work import Work
from ..errors import InvalidInputError
from ..text.streaming import StreamedToken
from .one_reader import OneReader
from .result import GenerationResult
from .stream import StreamedText

__all__ = ["AsyncTokenStream", "LoopBuffer", "run_works"]


async def run_works(engine: Engine, works: Sequence[Work]) -> None:
    """Run works and wait until all have ended; a cancelled task abandons them.

    Raises:
        InvalidInputError: this is a child that was forked meanwhile.
        BaseException: the error of the first work that failed; the others are abandoned.
    """
    if not works:
        return
    loop = _running_loop()
    ended = _event()
    left = len(works)

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0 or any(work.error is not None for work in works):
            ended.set()

    for work in works:
        work.on_end = lambda: _tell(loop, count)
    engine.submit(works)
    try:
        await ended.wait()
        for work in works:
            work.check_process()
            work.raise_error()
    except BaseException:
        engine.abandon(works, wait=False)
        raise


class LoopBuffer:
    """Tokens between the engine and a reader in an event loop."""

    def __init__(self) -> None:
        self._loop = _running_loop()
        self._changed = _event()
        self._tokens: deque[tuple[int, str]] = deque()
        self._ended = False

    def put(self, tokens: Sequence[tuple[int, str]]) -> None:
        """Add (token, finish reason) pairs; from the engine's thread."""
        self._tokens.extend(tokens)
        _tell(self._loop, self._changed.set)

    def end(self) -> None:
        """Say that no more will come; from the engine's thread."""
        self._ended = True
        _tell(self._loop, self._changed.set)

    async def get(self, work: Work) -> tuple[int, str] | None:
        """The next pair, waiting for it; None at the end.

        Args:
            work: what puts them in.

        Raises:
            InvalidInputError: this is a child that was forked since, or another event loop.
        """
        work.check_process()
        if _running_loop() is not self._loop:
            raise InvalidInputError(
                "this stream was opened in another event loop. Read it there, or open one in each loop."
            )
        while not self._tokens and not self._ended:
            self._changed.clear()
            if self._tokens or self._ended:  # they came before the event was cleared
                break
            await self._changed.wait()
            work.check_process()
        return self._tokens.popleft() if self._tokens else None


class AsyncTokenStream(OneReader):
    """As TokenStream, for `async for`: iterates over the tokens of one generation.

    Leaving the loop early leaves the generation running until the stream is closed (`await stream.aclose()`, or
    `async with`) or dropped, which ends it within a step. So does a timeout around the next token: the stream can be
    read on.
    """

    _closed = True  # until it is built: __del__ comes to half-built ones too

    def __init__(
        self, engine: Engine, generation: Generation, buffer: LoopBuffer, text: StreamedText
    ) -> None:
        self._engine, self._generation, self._buffer, self._text = engine, generation, buffer, text
        self._closed = False
        self.result: GenerationResult | None = None
        """The GenerationResult after the last token; None before, and if the stream was closed early."""

    def __aiter__(self) -> AsyncTokenStream:
        return self

    async def __anext__(self) -> StreamedToken:
        if self._closed:
            raise StopAsyncIteration
        found = await self._buffer.get(self._generation)
        if found is not None:
            return self._text.token(*found)
        self._closed = True
        self._generation.raise_error()
        self.result = self._text.result(self._generation)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the generation now."""
        self.close()

    def close(self) -> None:
        """As `aclose`, which waits for nothing: the step at hand ends by itself."""
        if not self._closed:
            self._closed = True
            self._engine.abandon([self._generation], wait=False)

    async def __aenter__(self) -> AsyncTokenStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._closed:
            self._generation.abandon()


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise InvalidInputError(
            "no event loop of asyncio is running in this thread. Call this inside a coroutine that asyncio.run() runs; "
            "other libraries' loops, such as trio's, can run generate() and stream() in threads."
        ) from None


_EVENTS: WeakSet[asyncio.Event] = WeakSet()
"""Events that tasks may be waiting for. A forked child sets them all: nothing else would there."""


def _event() -> asyncio.Event:
    event = asyncio.Event()
    _EVENTS.add(event)
    return event


def _after_fork() -> None:
    for event in list(_EVENTS):
        with suppress(RuntimeError):  # its loop was closed
            event.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _tell(loop: asyncio.AbstractEventLoop, function: object) -> None:
    """Call a function in a loop, which may have been closed since: nobody listens then."""
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(function)  # type: ignore[arg-type]
        except RuntimeError:  # closed just now
            return
