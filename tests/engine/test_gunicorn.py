"""gunicorn --preload: workers are forked from a process that has a generator, and has used it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sabiyarn_edge import EdgeGenerator

PROMPT, OPTIONS = [1, 2, 3], {"max_new_tokens": 5}
WAYS = {
    "sync": ("sync", "wsgi"),
    "threads": ("gthread", "wsgi"),
    "asyncio": ("uvicorn.workers.UvicornWorker", "asgi"),
}
WORKERS, REQUESTS = 2, 6
SECONDS = 60.0


@contextmanager
def gunicorn(way: str, model: Path, socket: Path, *, busy: bool) -> Iterator[httpx.Client]:
    """A client of a preloaded application; gunicorn must end by itself when it is told to."""
    kind, name = WAYS[way]
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "--workers",
        str(WORKERS),
        "--worker-class",
        kind,
    ]
    command += ["--bind", f"unix:{socket}", "--log-level", "warning", f"tests.engine.preloaded_app:{name}"]
    environment = {
        **os.environ,
        "PRELOADED_MODEL": str(model),
        "PRELOADED_CALL": json.dumps([PROMPT, OPTIONS]),
        "PRELOADED_IS_BUSY": "1" if busy else "",
    }
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + SECONDS
        while not socket.exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=SECONDS) as client:
            yield client
        process.terminate()
        _, said = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, said
        assert "Traceback" not in said and "TIMEOUT" not in said, said
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(
    importlib.util.find_spec("gunicorn") is None, reason="there is no gunicorn here: pip install gunicorn"
)
@pytest.mark.parametrize(("way", "busy"), [("sync", True), ("threads", False), ("asyncio", True)])
def test_workers_generate(text_model: Path, tmp_path: Path, way: str, busy: bool) -> None:
    expected = EdgeGenerator.from_pretrained(text_model, num_threads=1).generate(PROMPT, **OPTIONS)
    with gunicorn(way, text_model, tmp_path / "socket", busy=busy) as client:
        for _ in range(REQUESTS):
            answer = client.get("http://x/", headers={"Connection": "close"})
            assert (answer.status_code, answer.json()) == (200, expected.sequences.tolist())
