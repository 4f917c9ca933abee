"""The server's life: arguments, environment, sockets, loading and draining."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from sabiyarn_edge.cli import main
from sabiyarn_edge.server.app import make_app
from sabiyarn_edge.server.body import BODY_SECONDS
from sabiyarn_edge.server.service import ServedModel, Service, Settings
from tests.campaigns import no_sockets
from tests.campaigns.no_sockets import why_unavailable
from tests.server.conftest import SECONDS, Server, wait_until

ENDLESS = {"max_tokens": 100_000, "extra_body": {"overflow": "slide"}}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(serve: Callable[..., Server], text_model: Path, number: int) -> None:
    server = serve("--model", text_model, "--drain-timeout", "60")
    server.wait_until_ready()
    client = server.client()
    stream = iter(client.completions.create(model=text_model.name, prompt="a", stream=True, max_tokens=60))
    endless = iter(client.completions.create(model=text_model.name, prompt="a", stream=True, **ENDLESS))
    next(stream), next(endless)
    server.process.send_signal(number)
    wait_until(lambda: "draining" in server.log)
    health = server.get("/health")
    assert (health.status_code, health.json()) == (503, {"status": "draining"})
    with pytest.raises(openai.InternalServerError, match="the server is draining") as caught:
        client.completions.create(model=text_model.name, prompt="b")
    assert caught.value.response.headers["retry-after"] == "1"
    *_, last = stream  # what was begun is finished
    assert last.choices[0].finish_reason == "length"
    endless.close()
    client.close()
    del endless
    assert server.wait() == 0
    assert "Traceback" not in server.log


def test_what_does_not_end_is_cancelled(serve: Callable[..., Server], text_model: Path) -> None:
    server = serve("--model", text_model, "--drain-timeout", "0.3")
    server.wait_until_ready()
    stream = iter(
        server.client().completions.create(model=text_model.name, prompt="a", stream=True, **ENDLESS)
    )
    next(stream)
    server.process.send_signal(signal.SIGTERM)
    *_, last = stream
    assert last.choices[0].finish_reason == "length"
    assert server.wait() == 0
    assert "finish=cancelled" in server.log


def test_draining_does_not_wait_for_bodies(serve: Callable[..., Server], text_model: Path) -> None:
    """Bodies are given 30 s, and draining 1000: the connection ends before either."""
    server = serve("--model", text_model, "--drain-timeout", "1000")
    server.wait_until_ready()
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=BODY_SECONDS / 2) as connection:
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100"
        connection.sendall(f"{head}\r\n\r\n{{  ".encode())
        assert server.get("/health").status_code == 200  # by then the head was read
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert server.wait() == 0
    assert "Traceback" not in server.log


def test_a_second_signal_ends_it_at_once(serve: Callable[..., Server], text_model: Path) -> None:
    server = serve("--model", text_model, "--drain-timeout", "1000")
    server.wait_until_ready()
    stream = iter(
        server.client().completions.create(model=text_model.name, prompt="a", stream=True, **ENDLESS)
    )
    next(stream)
    server.process.send_signal(signal.SIGINT)
    wait_until(lambda: "draining" in server.log)
    assert server.end(signal.SIGINT) == 0


def test_it_answers_while_it_loads() -> None:
    """In this process, with a model that takes as long to load as the test wants."""
    loaded = threading.Event()

    def load() -> dict[str, ServedModel]:
        assert loaded.wait(SECONDS)
        return {}

    service = Service(["slow"], load, Settings(parallel=1, max_queue=1, timeout=1))
    app = make_app(service)

    async def run() -> None:
        loading = asyncio.create_task(service.load())
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            health = await client.get("/health")
            assert (health.status_code, health.json()) == (503, {"status": "loading"})
            refused = await client.get("/v1/models")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "the server is loading" in refused.json()["error"]["message"]
            loaded.set()
            await loading
            assert (await client.get("/health")).json() == {"status": "ready"}

    asyncio.run(run())


def test_a_model_that_cannot_be_loaded_ends_it(
    serve: Callable[..., Server], text_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(text_model, tmp_path / "damaged"))
    (folder / "decoder.onnx").write_bytes(b"damaged")
    server = serve("--model", folder)
    assert server.wait() == 1
    assert "error: " in server.lines[-1] and "decoder.onnx" in server.lines[-1]
    assert "Traceback" not in server.log
    (folder / "tokenizer.json").unlink()
    shutil.copy(text_model / "decoder.onnx", folder)
    server = serve("--model", folder)
    assert server.wait() == 2
    assert "has no tokenizer.json" in server.log


def test_a_unix_socket(serve: Callable[..., Server], text_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = serve("--model", f"tiny={text_model}", "--host", path)
    server.wait_until_ready()
    assert server.url == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o660
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x") as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
    second = serve("--model", text_model, "--host", path)
    assert second.wait() == 2
    assert "a server is listening" in second.log
    server.process.kill()
    server.wait()
    assert path.exists()  # left behind
    third = serve("--model", f"tiny={text_model}", "--host", path)
    third.wait_until_ready()
    assert third.end() == 0
    assert not path.exists()


@pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable())
def test_no_socket_is_opened_but_the_one_that_listens(text_model: Path, tmp_path: Path) -> None:
    """A Unix socket, in a process that the kernel kills at its first socket of another kind."""
    path = tmp_path / "socket"
    command = [
        sys.executable,
        "-m",
        "sabiyarn_edge",
        "serve",
        "--model",
        str(text_model),
        "--host",
        str(path),
    ]
    process = subprocess.Popen(
        [sys.executable, no_sockets.__file__, "--but-local", *command], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        while "ready: " not in (line := process.stderr.readline()):
            assert line, process.wait()
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x") as client:
            for endpoint, body in (("completions", {"prompt": "a"}), ("embeddings", {"input": "a"})):
                assert client.post(f"/v1/{endpoint}", json=body, timeout=SECONDS).status_code == 200
        process.terminate()
        process.communicate(timeout=SECONDS)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_several_models_share_a_memory_limit(serve: Callable[..., Server], text_model: Path) -> None:
    server = serve(
        *("--model", f"one={text_model}", "--model", "nano", "--memory-limit", "900"),
        *("--prefix-cache", "0", "--parallel", "2", "--max-length", "64"),
    )
    server.wait_until_ready()
    client = server.client()
    assert [model.id for model in client.models.list()] == ["one", "nano"]
    for model in ("one", "nano"):
        answer = client.completions.create(model=model, prompt="a", max_tokens=2)
        assert (answer.model, answer.usage.completion_tokens) == (model, 2)


def test_options_from_the_environment(serve: Callable[..., Server], text_model: Path) -> None:
    environment = {
        "SABIYARN_EDGE_MODEL": f"tiny={text_model},nano",
        "SABIYARN_EDGE_API_KEY": "a,b",
        "SABIYARN_EDGE_MAX_TOKENS_LIMIT": "3",
        "SABIYARN_EDGE_LOG_PROMPTS": "1",
    }
    server = serve("--api-key", "c", env=environment)
    server.wait_until_ready()
    with pytest.raises(openai.AuthenticationError):  # the command line's take their place
        server.client(api_key="a").models.list()
    client = server.client(api_key="c")
    assert [model.id for model in client.models.list()] == ["tiny", "nano"]
    assert client.completions.create(model="tiny", prompt="hello there").usage.completion_tokens == 3
    wait_until(lambda: "hello there" in server.log)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "--host is 0.0.0.0, which other machines can reach, and there is no key"),
        (["--host", "::"], "which other machines can reach"),
        (["--host", "no.such.host.invalid"], "which is no address of this machine"),
        (["--host", "/no/such/folder/socket"], "cannot listen on /no/such/folder/socket: No such file"),
        (["--port", "x"], "argument --port: invalid int value: 'x'"),
        (["--port", "70000"], "--port is 70000, but must be an integer from 0 to 65535"),
        (["--parallel", "0"], "--parallel is 0"),
        (["--max-queue", "-1"], "--max-queue is -1"),
        (["--timeout", "0"], "--timeout is 0.0"),
        (["--threads", "0"], "--threads is 0, but"),
        (["--max-length", "0"], "--max-length is 0, but"),
        (["--prefix-cache", "-1"], "--prefix-cache is -1, but"),
        (["--memory-limit", "0"], "--memory-limit is 0.0, but"),
        (
            ["--memory-limit", "8", "--port", "0", "--prefix-cache", "500"],
            "or give a smaller --parallel, --max-l",
        ),
        (["--max-tokens-limit", "0"], "--max-tokens-limit is 0"),
        (["--model", "no-such-folder"], "no-such-folder is not a folder"),
        (["--model", "nano", "--model", "nano"], "the name nano is given twice"),
        (["--model", "=nano"], "the name is empty"),
        (["--api-key", "a b"], "an API key is empty, or has spaces"),
        (["--api-key-file", "/no/such/file"], "cannot read the keys in /no/such/file"),
        (["--api-key-file", "/dev/zero"], "longer than 1 MiB"),
        (["--api-key-file", os.devnull], "there is no key in /dev/null"),
        *(
            (
                ["--cors-origins", f"https://a.example,{origin}"],
                f"--cors-origins has {origin!r}, which no browser",
            )
            for origin in (
                *("app.example", "https://app.example/", "https://app.example/page", "https://App.example"),
                *("https://", "//app.example", "https://me@app.example", "https://*.example/"),
            )
        ),
        (["--max-tokens", "3"], "unknown option --max-tokens; did you mean --max-tokens-limit?"),
    ],
)
def test_bad_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    expected = 1 if "not a folder" in message else 2
    assert main(["serve", *arguments]) == expected
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "x", "argument --port: invalid int value: 'x'"),
        ("LOW_POWER", "maybe", "SABIYARN_EDGE_LOW_POWER is 'maybe'; it must be 1 or 0"),
    ],
)
def test_bad_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"SABIYARN_EDGE_{name}", value)
    assert main(["serve"]) == 2
    assert message in capsys.readouterr().err
    assert main(["plan", "nano"]) == 0  # other commands do not mind


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "Another program listens there" in capsys.readouterr().err
