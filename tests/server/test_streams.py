"""Many streams at once, clients that leave, and queues."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from sabiyarn_edge import EdgeGenerator
from tests.server.conftest import SECONDS, Server, wait_until

ENDLESS: dict[str, Any] = {"max_tokens": 100_000, "extra_body": {"overflow": "slide"}}


def test_twenty_streams_side_by_side(server: Server, generator: EdgeGenerator) -> None:
    prompts = [f"prompt {i}" for i in range(20)]
    kinds: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"temperature": 1.3, "seed": 3}, {"do_sample": True, "temperature": 1.3, "seed": 3}),
        ({"extra_body": {"num_beams": 2}}, {"num_beams": 2}),
    ]
    expected = [
        generator.generate(prompt, max_new_tokens=15, **kinds[i % 3][1]).text
        for i, prompt in enumerate(prompts)
    ]

    async def read(client: openai.AsyncOpenAI, index: int) -> str:
        stream = await client.completions.create(
            model="tiny", prompt=prompts[index], max_tokens=15, stream=True, **kinds[index % 3][0]
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def run() -> list[str]:
        async with server.async_client() as client:
            return await asyncio.gather(*(read(client, index) for index in range(20)))

    assert asyncio.run(run()) == expected


def test_a_client_that_leaves_a_stream_frees_its_row(server: Server) -> None:
    client = server.client()
    for _ in range(5):
        stream = client.completions.create(model="tiny", prompt="a", stream=True, **ENDLESS)
        next(iter(stream))
        stream.close()
    wait_until(lambda: server.metric("requests_running") == 0)
    wait_until(lambda: server.log.count(" 499 ") >= 5)


def test_a_client_that_does_not_wait_for_its_answer_frees_its_row(server: Server) -> None:
    client = server.client(timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(model="tiny", prompt="a", **ENDLESS)
    wait_until(lambda: server.metric("requests_running") == 0)


def test_a_cancelled_task_frees_its_row(server: Server) -> None:
    async def run() -> None:
        async with server.async_client() as client:
            task = asyncio.create_task(client.completions.create(model="tiny", prompt="a", **ENDLESS))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    wait_until(lambda: server.metric("requests_running") == 0)


def test_a_reader_that_stops_reading_holds_up_nobody(server: Server, generator: EdgeGenerator) -> None:
    stalled = [opened(server, {"prompt": "a", "stream": True, "max_tokens": 80}) for _ in range(4)]
    expected = generator.generate("b", max_new_tokens=9).text
    answer = server.client().completions.create(model="tiny", prompt="b", max_tokens=9)
    assert answer.choices[0].text == expected
    for connection in stalled:
        connection.close()


def test_mixed_traffic_leaves_nothing_behind(server: Server, generator: EdgeGenerator) -> None:
    """Clients that read to the end get all of it, whatever those beside them do: leave, or ask for nonsense."""
    seed = 7
    rng = random.Random(seed)
    kinds = rng.choices(["read", "leave", "give-up", "bad"], weights=[5, 3, 2, 2], k=60)

    async def ask(client: openai.AsyncOpenAI, index: int, kind: str) -> str | None:
        await asyncio.sleep(rng.random())
        options: dict[str, Any] = {"model": "tiny", "prompt": f"number {index}"}
        if kind == "bad":
            with pytest.raises(openai.BadRequestError):
                await client.completions.create(**options, extra_body={"top_k": "many"})
            return None
        if kind == "give-up":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.random() / 2):
                    await client.completions.create(**options, **ENDLESS)
            return None
        if kind == "leave":
            stream = await client.completions.create(**options, stream=True, **ENDLESS)
            await anext(aiter(stream))
            await stream.close()
            return None
        stream = await client.completions.create(
            **options, stream=True, max_tokens=20, temperature=1, seed=index
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def run() -> list[str | None]:
        async with server.async_client(max_retries=50) as client:
            return await asyncio.gather(*(ask(client, *given) for given in enumerate(kinds)))

    for index, text in enumerate(asyncio.run(run())):
        if text is not None:
            alone = generator.generate(f"number {index}", max_new_tokens=20, do_sample=True, seed=index)
            assert text == alone.text, f"request {index} of seed {seed}"
    wait_until(lambda: server.metric("requests_running") == server.metric("requests_waiting") == 0)
    full = server.client().completions.create(model="tiny", prompt="a", n=4, temperature=1, max_tokens=1)
    assert len(full.choices) == 4


def test_the_queue_is_bounded(serve: Callable[..., Server], text_model: Path) -> None:
    server = serve("--model", f"tiny={text_model}", "--parallel", "2", "--max-queue", "1")
    server.wait_until_ready()
    client = server.client()
    streams = [client.completions.create(model="tiny", prompt="a", stream=True, **ENDLESS) for _ in range(2)]
    for stream in streams:
        next(iter(stream))
    waiting = opened(server, {"prompt": "b", "max_tokens": 3})
    wait_until(lambda: server.metric("requests_waiting") == 1)
    with pytest.raises(openai.RateLimitError, match="3 rows run or wait") as caught:
        client.completions.create(model="tiny", prompt="c")
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.code == "queue_full"
    assert server.metric("refused_total") == 1
    streams[0].close()
    assert b"200 OK" in waiting.recv(1000)
    waiting.close()
    streams[1].close()
    wait_until(lambda: server.metric("requests_running") == 0)
    assert client.completions.create(model="tiny", prompt="c", max_tokens=1).usage is not None


def test_time_is_bounded(serve: Callable[..., Server], text_model: Path) -> None:
    server = serve(
        *(
            "--model",
            f"tiny={text_model}",
            "--parallel",
            "1",
            "--timeout",
            "1",
            "--max-tokens-limit",
            "100000",
        )
    )
    server.wait_until_ready()
    client = server.client()
    hurried: dict[str, Any] = {"model": "tiny", "prompt": "a", "extra_body": {"max_time": 1e-9}}
    for answer in (client.completions.create(**hurried), *client.completions.create(stream=True, **hurried)):
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "length")  # a row was free
    running = client.completions.create(model="tiny", prompt="a", stream=True, **ENDLESS)
    next(iter(running))
    for stream in (True, False):
        with pytest.raises(openai.APIError, match="time was over before a row was free"):
            list(
                client.completions.create(
                    model="tiny", prompt="a", stream=stream, extra_body={"max_time": 0.2}
                )
            )
    *_, last = running
    assert last.choices[0].finish_reason == "length"
    with pytest.raises(
        openai.BadRequestError, match="max_tokens is 100001, but this server gives at most 100000"
    ):
        client.completions.create(model="tiny", prompt="a", max_tokens=100_001)


def test_comments_keep_a_quiet_stream_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: nothing comes for longer than a test may last otherwise."""
    from sabiyarn_edge.server import event_stream

    monkeypatch.setattr(event_stream, "_KEEP_ALIVE_SECONDS", 0.02)
    sent: list[bytes] = []

    async def events() -> AsyncIterator[bytes]:
        yield event_stream.event("first")
        await asyncio.sleep(0.5)
        yield event_stream.event("second")

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(SECONDS)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    ended: list[bool] = []
    stream = event_stream.EventStream(events(), lambda: ended.append(True))
    asyncio.run(stream({"type": "http", "state": {}}, receive, send))
    assert ended == [True]
    written = b"".join(sent)
    assert written.startswith(b'data: "first"\n\n: ') and written.endswith(b'\n\ndata: "second"\n\n')
    assert written.count(b": keep-alive\n\n") >= 4


def opened(server: Server, body: dict[str, Any]) -> socket.socket:
    """A connection on which a request was sent, and nothing is read."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=SECONDS)
    content = json.dumps(body).encode()
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
    )
    return connection
