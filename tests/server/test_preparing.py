"""What a request needs before it runs is done beside the event loop: other requests are answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.constraints.compiler import ConstraintCompiler
from sabiyarn_edge.server.app import make_app
from sabiyarn_edge.server.response_format import MAX_CHARACTERS
from sabiyarn_edge.server.service import ServedModel, Service, Settings
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.server.conftest import SECONDS

SLOW = ["ab"]
"""Choices that take as long to compile as a test wants."""


class Held:
    """Holds a method while `holds()` is true of its arguments, until `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, holds: Any) -> None:
        self.begun: list[Any] = []
        self.go = threading.Event()
        whole = getattr(owner, name)

        def slow(this: Any, *arguments: Any, **options: Any) -> Any:
            if holds(*arguments):
                self.begun.append(arguments)
                assert self.go.wait(SECONDS)
            return whole(this, *arguments, **options)

        monkeypatch.setattr(owner, name, slow)

    async def wait(self) -> None:
        async with asyncio.timeout(SECONDS):
            while not self.begun:
                await asyncio.sleep(0.001)


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(monkeypatch, ConstraintCompiler, "_compile", lambda option, value: "ab" in value)
    yield held
    held.go.set()


def served(folder: Path, timeout: float = SECONDS) -> Service:
    settings = Settings(parallel=4, max_queue=40, timeout=timeout)
    generator = EdgeGenerator.from_pretrained(folder, num_threads=1)
    service = Service(["tiny"], lambda: {"tiny": ServedModel("tiny", generator, settings)}, settings)
    return service


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    await service.load()
    transport = httpx.ASGITransport(app=make_app(service, logs=False))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=SECONDS) as client:
            yield client
    finally:
        service.close()


def complete(client: httpx.AsyncClient, **body: Any) -> asyncio.Task[httpx.Response]:
    given = {"prompt": "a", "max_tokens": 4, **body}
    return asyncio.ensure_future(client.post("/v1/completions", json=given))


def parts(answer: httpx.Response) -> list[Any]:
    """The JSON values of an answer, or of a stream's events."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.parametrize("stream", [False, True])
def test_the_others_are_answered_while_a_constraint_compiles(
    text_model: Path, compiling: Held, stream: bool
) -> None:
    async def run() -> None:
        async with client_of(served(text_model)) as client:
            assert (await complete(client, choices=["a"])).status_code == 200
            slow = complete(client, choices=SLOW, stream=stream)
            await compiling.wait()
            assert (await client.get("/health")).status_code == 200
            assert (await complete(client, stream=True)).text.endswith("data: [DONE]\n\n")
            assert (await complete(client, choices=["a"])).json()["choices"][0][
                "text"
            ] == "a"  # which is kept
            assert not slow.done()
            compiling.go.set()
            answer = await slow
            assert answer.status_code == 200, answer.text
            choices = [choice for part in parts(answer) for choice in part["choices"]]
            assert "".join(choice["text"] for choice in choices) == "ab"

    asyncio.run(run())


def test_one_constraint_compiles_at_a_time(text_model: Path, compiling: Held) -> None:
    async def run() -> None:
        async with client_of(served(text_model)) as client:
            slow = [complete(client, choices=["ab", f"b{i}"]) for i in range(40)]
            await compiling.wait()
            for _ in range(20):  # more than the threads that could wait for the first
                assert (await complete(client)).status_code == 200
            assert len(compiling.begun) == 1
            compiling.go.set()
            assert {(await one).status_code for one in slow} == {200}
            assert len(compiling.begun) == 40

    asyncio.run(run())


def test_a_task_of_which_the_options_compile(nano_service: Service, compiling: Held) -> None:
    async def run() -> None:
        async with client_of(nano_service) as client:
            body = {"text": "Good morning.", "to": "yor", "options": {"choices": SLOW}}
            slow = [
                asyncio.ensure_future(client.post("/v1/tasks/translate", json={**body, "stream": stream}))
                for stream in (False, True)
            ]
            await compiling.wait()
            assert (await client.get("/health")).status_code == 200
            compiling.go.set()
            for one in slow:
                answer = await one
                assert answer.status_code == 200, answer.text
                assert "".join(part.get("answer") or part.get("text", "") for part in parts(answer)) == "ab"

    asyncio.run(run())


@pytest.fixture
def nano_service() -> Service:
    return served(Path(EdgeGenerator.from_pretrained().folder))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "abab", "max_tokens": 1}),
        ("/v1/embeddings", {"input": "abab"}),
        ("/tokenize", {"prompt": "abab"}),
    ],
)
def test_the_others_are_answered_while_a_text_is_encoded(
    text_model: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    held = Held(monkeypatch, Tokenizer, "encode", lambda text: text == "abab")

    async def run() -> None:
        async with client_of(served(text_model)) as client:
            slow = asyncio.ensure_future(client.post(path, json=body))
            await held.wait()
            assert (await client.get("/health")).status_code == 200
            held.go.set()
            assert (await slow).status_code == 200

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_rows(text_model: Path, compiling: Held, stream: bool) -> None:
    service = served(text_model)

    async def run() -> None:
        left = asyncio.Event()
        body = json.dumps({"prompt": "a", "choices": SLOW, "stream": stream}).encode()
        came = iter([{"type": "http.request", "body": body}])

        async def receive() -> dict[str, Any]:
            if message := next(came, None):
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        async with client_of(service):
            asking = asyncio.ensure_future(make_app(service, logs=False)(scope, receive, send))  # type: ignore[arg-type]
            await compiling.wait()
            assert service.models["tiny"]._rows == 1
            left.set()
            await asking  # while it still compiles
            assert service.models["tiny"]._rows == 0
            compiling.go.set()

    asyncio.run(run())


def test_a_request_whose_time_ends_before_it_compiled_is_told_so(text_model: Path, compiling: Held) -> None:
    async def run() -> None:
        service = served(text_model, timeout=0.05)
        async with client_of(service) as client:
            answer = await complete(client, choices=SLOW)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "timeout"
            assert "time was over before it was prepared" in answer.text
            assert service.models["tiny"]._rows == 0
            compiling.go.set()

    asyncio.run(run())


LONG = "a" * (MAX_CHARACTERS + 1)
LONG_SCHEMA = {"type": "object", "description": LONG}
LONG_TOOL = {"type": "function", "function": {"name": "f", "parameters": LONG_SCHEMA}}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("completions", {"prompt": "a", "regex": LONG}, "regex"),
        ("completions", {"prompt": "a", "guided_grammar": LONG}, "guided_grammar"),
        (
            "completions",
            {
                "prompt": "a",
                "response_format": {"type": "json_schema", "json_schema": {"schema": LONG_SCHEMA}},
            },
            "response_format",
        ),
        ("tasks/translate", {"text": "a", "to": "yor", "options": {"regex": LONG}}, "regex"),
        (
            "chat/completions",
            {
                "messages": [{"role": "user", "content": "a"}],
                "tools": [LONG_TOOL],
                "tool_choice": "required",
                "overflow": "truncate_prompt",
            },
            "tools",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_long_constraints_are_refused(
    nano_service: Service, path: str, body: dict[str, Any], param: str
) -> None:
    async def run() -> None:
        async with client_of(nano_service) as client:
            answer = await client.post(f"/v1/{path}", json=body)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (400, param), answer.text
            assert f"characters, but a request may have {MAX_CHARACTERS}" in error["message"]

    asyncio.run(run())
