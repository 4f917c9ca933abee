"""Clients that mean no good, on bare sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.server.conftest import SECONDS, Server, wait_until


def exchange(server: Server, request: bytes) -> bytes:
    """Send bytes and read until the server closes the connection."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=SECONDS) as connection:
        received = b""
        try:
            connection.sendall(request)
            while part := connection.recv(65536):
                received += part
        except ConnectionError:  # closed while there was more to send
            pass
        return received


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n\x00\xff",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200_000 + b"\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["bytes", "many-headers", "long-header", "long-path", "length", "two-lengths", "chunks"],
)
def test_what_is_no_request(server: Server, request_bytes: bytes) -> None:
    answer = exchange(server, request_bytes)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
    assert server.get("/health").status_code == 200


def test_connections_that_send_nothing_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    from sabiyarn_edge.server import protocol

    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    assert in_this_process(drip_a_head) == (b"", b"", True)


async def drip_a_head(port: int) -> tuple[bytes, bytes, bool]:
    """What is answered to nothing, and to a header that comes byte by byte; and whether a whole request still is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    nothing = await read(reader)
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.monotonic()
    while time.monotonic() < started + SECONDS and not reader.at_eof():
        writer.write(b"G")
        await asyncio.sleep(0.01)
    dripped = await read(reader)
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    answered = (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    return nothing, dripped, answered


def test_when_all_connections_are_taken_errors_are_json(
    serve: Callable[..., Server], text_model: Path
) -> None:
    server = serve("--model", text_model)
    address = urlsplit(server.url)
    with ExitStack() as opened:
        for _ in range(512):  # as docs/server.md says
            opened.enter_context(socket.create_connection((address.hostname, address.port), timeout=SECONDS))
        answer = server.get("/health")
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["connection"]) == (
        503,
        "1",
        "close",
    )
    error = answer.json()["error"]
    assert "more than 512 connections are open" in error["message"]
    assert (error["type"], error["code"]) == ("server_error", "too_many_connections")
    wait_until(lambda: server.get("/health").status_code == 200)


def test_bodies_that_do_not_come_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from sabiyarn_edge.server import body

    monkeypatch.setattr(body, "BODY_SECONDS", 0.1)
    assert in_this_process(promise_a_body).startswith(b"HTTP/1.1 408")


async def promise_a_body(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    answer = await read(reader)
    writer.close()
    return answer


async def read(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the end of the connection."""
    try:
        return await asyncio.wait_for(reader.read(), SECONDS)
    except ConnectionError:
        return b""


def in_this_process(talk: Callable[[int], object]) -> object:
    """Run a server without models here, where its times can be made short, and talk to it."""
    import uvicorn

    from sabiyarn_edge.server.app import make_app
    from sabiyarn_edge.server.protocol import BoundedProtocol
    from sabiyarn_edge.server.service import Service, Settings

    service = Service([], dict, Settings(parallel=1, max_queue=1, timeout=1))
    config = uvicorn.Config(
        make_app(service), http=BoundedProtocol, loop="asyncio", lifespan="off", ws="none", log_config=None
    )

    async def run() -> object:
        await service.load()
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server._serve([listener]))
            answer = await talk(listener.getsockname()[1])  # type: ignore[misc]
            server.should_exit = True
            await serving
        return answer

    return asyncio.run(run())


def test_a_client_that_never_reads_is_given_up(
    serve: Callable[..., Server], text_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sabiyarn_edge.server import access
    from sabiyarn_edge.server.access import RequestLog, record_of
    from sabiyarn_edge.server.service import Service, Settings

    monkeypatch.setattr(access, "SEND_SECONDS", 0.05)
    service = Service([], dict, Settings(parallel=1, max_queue=1, timeout=1))
    sent = []

    async def app(scope: object, receive: object, send: Callable[..., object]) -> None:
        while True:
            await send({"type": "http.response.start", "status": 200})  # type: ignore[misc]

    async def stuck(message: object) -> None:
        sent.append(message)
        await asyncio.sleep(len(sent) * SECONDS - SECONDS)

    scope = {"type": "http", "method": "GET", "path": "/", "client": None}
    asyncio.run(RequestLog(app, service)(scope, None, stuck))  # type: ignore[arg-type]
    assert len(sent) == 2
    assert service.metrics.responses == {access.CLIENT_GONE: 1}
    assert "read nothing" in record_of(scope)["error"]
