"""What stands around every request: a line in the log, a bound on slow readers, keys, names, and the server's state."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import socket
import sys
import time
import traceback
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import shown
from .errors import HttpError, error_response
from .service import Service

__all__ = ["Gate", "NameCheck", "RequestLog", "record_of"]

SEND_SECONDS = 30.0
"""A client that reads nothing for so long is given up. What it has not read waits in its stream, not in the engine."""
CLIENT_GONE = 499
"""Status in the log of a request whose client went away; it is never sent. Source: nginx."""

_RECORD = "sabiyarn_edge.record"


def record_of(scope: MutableMapping[str, Any]) -> dict[str, Any]:
    """Names and values that a request's line in the log shall hold."""
    record: dict[str, Any] = scope.setdefault(_RECORD, {})
    return record


class RequestLog:
    """Writes one line for each request to standard error, counts answers and gives slow readers up.

    Args:
        app: the application; an error that it raises is written with its traceback, and shown to nobody.
        service: whose metrics count.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, gone = time.perf_counter(), 0, False
        record = record_of(scope)

        async def send_in_time(message: Message) -> None:
            nonlocal status, gone
            if message["type"] == "http.response.start":
                status = message["status"]
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                gone, record["error"] = True, f"the client read nothing for {SEND_SECONDS:g} s"
                raise ClientDisconnect from None
            except h11.LocalProtocolError:  # the rest of its request was no HTTP, and it was told so
                gone = True
                raise ClientDisconnect from None

        try:
            await self._app(scope, receive, send_in_time)
        except Exception:
            if not gone:
                traceback.print_exc()
        if record.pop("gone", gone):
            status = CLIENT_GONE
        self._service.metrics.responses[status] += 1
        if scope["path"] not in _QUIET or status != 200:
            _write(scope, status, record, time.perf_counter() - started)


_QUIET = ("/health", "/metrics")
"""Asked every few seconds by machines."""


def _write(scope: Scope, status: int, record: dict[str, Any], seconds: float) -> None:
    client = scope.get("client")
    words = [
        time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        str(client[0]) if client and client[0] else "-",
        scope["method"],
        json.dumps(scope["path"])[1:-1],  # without line breaks
        str(status),
        f"seconds={seconds:.3f}",
        *(f"{name}={_value(value)}" for name, value in record.items()),
    ]
    print(*words, file=sys.stderr, flush=True)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if text.isalnum() else json.dumps(text, ensure_ascii=False)


class Gate:
    """Lets requests with a key in, if keys are asked for, while the server is ready.

    Args:
        app: an endpoint.
        service: whose keys and state.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._keys = [key.encode() for key in service.settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_key(Headers(scope=scope))
            with self._service.request():
                await self._app(scope, receive, send)
        except HttpError as error:
            record_of(scope)["error"] = error.message
            await error_response(error)(scope, receive, send)

    def _check_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not _is_among(
            given.strip().encode("latin-1", "replace"), self._keys
        ):
            what = "the API key is wrong" if given else "there is no API key"
            raise HttpError(
                401,
                f"{what}. Send a header Authorization: Bearer KEY with a key of this server.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _is_among(given: bytes, keys: Iterable[bytes]) -> bool:
    """Whether a key is right, in a time that does not depend on how much of one it has."""
    found = False
    for key in keys:
        found |= hmac.compare_digest(given, key)
    return found


class NameCheck:
    """Keeps other pages of a user's browser out of a server without keys.

    A page of any site may have its name resolve to this machine (DNS rebinding), and is then of the same origin as this
    server to the browser. The name still stands in Host, so names that others can own are refused. Nobody can register
    a name without a dot, as proxies and containers use. Only a proxy reaches a Unix socket, and it knows its names.

    Args:
        app: the application.
        service: whose settings name further hosts and origins.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._origins = frozenset(service.settings.cors_origins)
        self._named = frozenset(map(str.lower, service.settings.allowed_hosts))
        own = socket.gethostname().lower()
        self._hosts = {own, f"{own.partition('.')[0]}.local", *self._named}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        on_unix_socket = scope.get("server") is not None and scope["server"][1] is None
        if scope["type"] == "http" and not on_unix_socket:
            try:
                self._check(scope["method"], Headers(scope=scope))
            except HttpError as error:
                record_of(scope)["error"] = error.message
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, method: str, headers: Headers) -> None:
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        if not self._is_own(_name_of(f"//{host}")):
            raise HttpError(
                421,
                f"the host is {shown(host)}, which is no name of this machine: without keys this server answers to "
                "addresses and its own names only. Ask by its address, or start it with --api-key-file, or with this "
                "name among --allowed-hosts.",
                code="host_not_allowed",
            )
        if method != "POST" or not origin or origin.partition("://")[2] == host:
            return
        if not ({"*", origin} & self._origins or _name_of(origin) in self._named):
            raise HttpError(
                403,
                f"the origin is {shown(origin)}, another page than this server's: without keys it takes nothing from "
                "others. Start it with --api-key-file, or with this origin among --cors-origins.",
                code="origin_not_allowed",
            )

    def _is_own(self, name: str) -> bool:
        if "." not in name or name.endswith(".localhost") or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name_of(address: str) -> str:
    """The host's name in an address; one that cannot be read is no name of anybody."""
    try:
        return (urlsplit(address).hostname or "").removesuffix(".")
    except ValueError:
        return "."
