"""The server as a process: it listens, loads its models, answers, and drains when it is told to end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from ..options.generation_config import OptionWarning
from .app import make_app
from .errors import RETRY_SECONDS, HttpError, error_response
from .protocol import BoundedProtocol
from .service import Service

__all__ = ["run_server"]

MAX_CONNECTIONS = 512
"""Requests get 503 while more are open: each takes a file, of which a process has 1024, and some memory."""
KEEP_ALIVE_SECONDS = 30
MAX_HEAD_BYTES = 32 * 2**10
"""Of a request's line and headers."""
CLOSING_SECONDS = 5
"""For connections to close once all requests have ended."""

_FULL = error_response(
    HttpError(
        503,
        f"more than {MAX_CONNECTIONS} connections are open, the most that this server takes. Try again later.",
        code="too_many_connections",
        headers={"Retry-After": str(RETRY_SECONDS), "Connection": "close"},
    )
)


def run_server(
    service: Service,
    listener: socket.socket,
    *,
    drain_seconds: float,
    say: Callable[[str], None],
) -> None:
    """Answer on a socket until SIGTERM or Ctrl-C; a second signal ends it at once.

    Args:
        drain_seconds: how long requests at hand may go on after the first signal; what has not ended then is
            cancelled, with what it has.
        say: told what happens.

    Raises:
        Exception: what kept the models from being loaded.
    """
    failed: list[Exception] = []

    async def load() -> None:
        try:
            await service.load()
            say(f"ready: {', '.join(service.names)}")
        except Exception as error:
            failed.append(error)
            server.should_exit = True

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(load())
        yield
        await loading
        service.close()

    warnings.simplefilter("ignore", OptionWarning)  # clients send options that change nothing
    # Its own messages are for developers; whatever concerns users is said here.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    app = make_app(service, lifespan)

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        full = scope["type"] == "http" and len(server.server_state.connections) > MAX_CONNECTIONS
        await (_FULL if full else app)(scope, receive, send)

    config = uvicorn.Config(
        bounded,
        loop="asyncio",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    server = _DrainingServer(config, service, drain_seconds, say)
    server.run([listener])
    if failed:
        raise failed[0]


class _DrainingServer(uvicorn.Server):
    """Goes on answering while it drains: whoever asks then is told so, instead of finding nobody."""

    def __init__(
        self, config: uvicorn.Config, service: Service, drain_seconds: float, say: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._service, self._drain_seconds, self._say = service, drain_seconds, say
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.state == "draining" or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self._say(f"{signal.Signals(sig).name}: draining")
        self._service.state = "draining"
        self._loop.call_soon_threadsafe(self._begin_to_drain)

    def _begin_to_drain(self) -> None:
        for connection in list(self.server_state.connections):
            assert isinstance(connection, BoundedProtocol)
            connection.drop_unsent()

        async def drain() -> Any:
            await self._service.drain(self._drain_seconds)
            self.should_exit = True

        self._draining = asyncio.get_running_loop().create_task(drain())
