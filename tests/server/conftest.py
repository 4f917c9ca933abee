"""A server process on loopback, and what it is compared with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from sabiyarn_edge import EdgeGenerator

SECONDS = 60.0
"""No answer within so long is a hang, not a slow machine."""


class Server:
    """`sabiyarn-edge serve` in a process of its own; what it says is in `lines`."""

    def __init__(self, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sabiyarn_edge", "serve", *map(os.fspath, arguments)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.lines: list[str] = []
        self._clients: list[openai.OpenAI] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    @property
    def log(self) -> str:
        """All that it has said."""
        return "".join(self.lines)

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        wait_until(lambda: "listening on" in self.log or self.process.poll() is not None)
        match = re.search(r"listening on (\S+)", self.log)
        assert match is not None, self.log
        return match[1]

    def wait_until_ready(self) -> None:
        wait_until(lambda: "ready: " in self.log or self.process.poll() is not None)
        assert self.process.poll() is None, self.log

    def client(self, **options: Any) -> openai.OpenAI:
        """A client, closed when the server stops."""
        client = openai.OpenAI(**self._client_options(options))
        self._clients.append(client)
        return client

    def async_client(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._client_options(options))

    def _client_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "base_url": f"{self.url}/v1",
            "api_key": "none",
            "max_retries": 0,
            "timeout": SECONDS,
            **options,
        }

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=SECONDS, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=SECONDS, **options)

    def metric(self, name: str) -> float:
        """One of its metrics, summed over the models."""
        lines = self.get("/metrics").text.splitlines()
        found = [float(line.split()[-1]) for line in lines if re.match(rf"sabiyarn_edge_{name}\b", line)]
        assert found, name
        return sum(found)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; gives the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return code

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def running(server: Server) -> Iterator[None]:
    """Wait until a server is ready; stop it at the end. It must not have said a traceback."""
    try:
        server.wait_until_ready()
        yield
        assert "Traceback" not in server.log, server.log
    finally:
        server.stop()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers; they end with the test."""
    started: list[Server] = []

    def start(*arguments: str | Path, env: dict[str, str] | None = None) -> Server:
        started.append(Server("--port", "0", *arguments, env=env))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def server(text_model: Path) -> Iterator[Server]:
    """A server of the tiny model, "tiny", with four rows."""
    server = Server(
        *("--port", "0", "--threads", "1", "--parallel", "4", "--max-queue", "40"),
        "--model",
        f"tiny={text_model}",
    )
    with running(server):
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return server.client()


@pytest.fixture(scope="module")
def generator(text_model: Path) -> EdgeGenerator:
    """The oracle: the same model without a server."""
    return EdgeGenerator.from_pretrained(text_model, num_threads=1)


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait for what another process does soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
