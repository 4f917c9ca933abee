"""Answers that end when their client goes away, and EventStream: server-sent events.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ..errors import SabiYarnError
from .access import record_of
from .errors import HttpError, error_fields

__all__ = ["EventStream", "error_event", "event", "unless_gone"]

_KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: proxies close connections on which nothing comes for a while, as while a long prompt is read, or tokens
come that give no text."""

_KEEP_ALIVE_SECONDS = 10.0
"""Proxies wait for half a minute or more, as a rule."""

Result = TypeVar("Result")


def event(content: object) -> bytes:
    """One event with a JSON value."""
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


def error_event(error: Exception, record: dict[str, Any]) -> bytes:
    """What ended a stream after its status was sent.

    Args:
        record: of the request's line in the log.
    """
    if not isinstance(error, SabiYarnError | HttpError):
        traceback.print_exception(error, file=sys.stderr)
    told = HttpError.of(error)
    record["error"] = told.message
    return event(error_fields(told))


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work`, and cancel it when the client goes away.

    Args:
        receive: of a request whose body was read.

    Raises:
        ClientDisconnect: the client went away.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_wait_until_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """A response of server-sent events.

    Args:
        events: encoded, as they come.
        on_end: called when no more will be asked for: after the last, or when the client is gone.
    """

    def __init__(self, events: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        self._events, self._on_end = events, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._write(send))
        except ClientDisconnect:
            record_of(scope)["gone"] = True
        finally:
            self._on_end()

    async def _write(self, send: Send) -> None:
        headers = {
            b"content-type": b"text/event-stream; charset=utf-8",
            b"cache-control": b"no-cache",
            b"x-accel-buffering": b"no",  # nginx passes events on as they come
        }
        await send({"type": "http.response.start", "status": 200, "headers": list(headers.items())})
        sent = asyncio.Event()

        async def put(encoded: bytes) -> None:
            sent.set()
            await send({"type": "http.response.body", "body": encoded, "more_body": True})

        keeping = asyncio.create_task(_keep_alive(sent, put))
        try:
            async with aclosing(self._events) as events:  # type: ignore[type-var]
                async for encoded in events:
                    await put(encoded)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _keep_alive(sent: asyncio.Event, put: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
    """Put a comment wherever nothing was sent for a while, up to twice _KEEP_ALIVE_SECONDS; put() sets `sent`."""
    while True:
        sent.clear()
        await asyncio.sleep(_KEEP_ALIVE_SECONDS)
        if not sent.is_set():
            await put(_KEEP_ALIVE)
