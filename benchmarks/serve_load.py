"""python -m benchmarks serve_load MODEL: many streams from one server process, beside one batch of as many rows.

Each round runs the batch, the streams, and the streams with a long prompt that arrives in their midst; figures are
medians over the rounds. The client is this process, on the same CPUs: what it takes is in the figures. Not counted:
the network, since client and server talk over loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sabiyarn_edge.bench.machine import describe_machine
from sabiyarn_edge.model_folder.config import ModelConfig

from .arguments import count, out_file

START_SECONDS = 120.0
END_SECONDS = 10.0
_ASKED = ("streams", "tokens", "prompt", "long", "rounds", "threads")


@dataclass(frozen=True)
class Address:
    """Where the server listens, and its process."""

    port: int
    pid: int
    path: str = "/v1/completions"


def main() -> int:
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__.partition("\n")[0])
    parser.add_argument("model", metavar="MODEL", help="model folder with a tokenizer.json")
    parser.add_argument("--streams", type=count, default=20, metavar="N", help="streams at once (default 20)")
    parser.add_argument("--tokens", type=count, default=32, metavar="N", help="tokens of each (default 32)")
    parser.add_argument(
        "--prompt", type=count, default=16, metavar="N", help="tokens of a prompt (default 16)"
    )
    parser.add_argument(
        "--long", type=count, default=1000, metavar="N", help="of the long one (default 1000)"
    )
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="rounds (default 5)")
    parser.add_argument("--threads", type=count, default=2, metavar="N", help="threads (default 2)")
    parser.add_argument("--out", type=out_file, metavar="FILE", help="write the figures as JSON too")
    arguments = parser.parse_args()
    rows = arguments.streams + 1
    with running(lambda port: serve_command(arguments.model, port, rows, arguments.threads)) as address:
        figures = asyncio.run(measure(arguments, address))
    print(json.dumps(figures, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def serve_command(model: Path | str, port: int, rows: int, threads: int) -> list[str]:
    """This package's server of a model folder, which requests call "model"."""
    options = {"--model": f"model={model}", "--port": port, "--parallel": rows, "--threads": threads}
    return [
        sys.executable,
        "-m",
        "sabiyarn_edge",
        "serve",
        *(str(x) for pair in options.items() for x in pair),
    ]


@contextmanager
def running(
    command: Callable[[int], list[str]],
    *,
    ready: str = "/health",
    path: str = Address.path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Address]:
    """A server that is ready, ended with the block.

    Args:
        command: starts it, given a free port.
        ready: the path that answers when it is.
        path: where requests go.
        environment: variables on top of this process's.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command(port), stdout=log, stderr=log, env={**os.environ, **(environment or {})}
        )
        try:
            end = time.monotonic() + START_SECONDS
            while not _answers(f"http://127.0.0.1:{port}{ready}"):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(f"error: the server did not start: {log.read()[-2000:]}")
                time.sleep(0.1)
            yield Address(port, process.pid, path)
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # URLError is one
        return False


async def measure(arguments: argparse.Namespace, address: Address) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    vocab_size = ModelConfig.load(Path(arguments.model)).gptjx.vocab_size
    batches, streams, disturbed = [], [], []

    def prompts(num: int, length: int) -> list[list[int]]:
        return rng.integers(1, vocab_size, (num, length)).tolist()

    for round_ in range(arguments.rounds + 1):
        started = time.perf_counter()
        await request(address, body(prompts(arguments.streams, arguments.prompt), arguments.tokens))
        batch = arguments.streams * arguments.tokens / (time.perf_counter() - started)
        alone = await run_streams(address, arguments, prompts)
        beside = await run_streams(address, arguments, prompts, long=prompts(1, arguments.long)[0])
        if round_:  # the first warms up
            batches.append(batch)
            streams.append(alone)
            disturbed.append(beside)
    batch = statistics.median(batches)
    return {
        "benchmark": "serve_load",
        "machine": describe_machine(),
        "model": Path(arguments.model).name,
        "asked": {name: getattr(arguments, name) for name in _ASKED},
        "batch_tokens_per_second": batch,
        "streams": median_of(streams),
        "streams_of_batch": statistics.median(s["tokens_per_second"] for s in streams) / batch,
        "with_long_prompt": median_of(disturbed),
        "resident_mib": resident_mib(address.pid),
    }


def body(prompt: Any, tokens: int, **more: Any) -> dict[str, Any]:
    """A request for exactly so many tokens."""
    return {"prompt": prompt, "max_tokens": tokens, "min_new_tokens": tokens, **more}


async def run_streams(
    address: Address, arguments: argparse.Namespace, prompts: Any, long: Sequence[int] | None = None
) -> dict[str, float]:
    """All streams at once; with `long`, a prompt that arrives when they have begun."""
    started = time.perf_counter()
    reading = [
        asyncio.create_task(request(address, body(prompt, arguments.tokens, stream=True)))
        for prompt in prompts(arguments.streams, arguments.prompt)
    ]
    if long is not None:
        await asyncio.sleep(0.2)
        await request(address, body(list(long), 1))
    times = await asyncio.gather(*reading)
    return stream_figures(started, times, arguments.tokens)


def stream_figures(started: float, times: Sequence[Sequence[float]], tokens: int) -> dict[str, float]:
    """The figures of streams of so many tokens, which were opened at once, from when their events came."""
    seconds = max(own[-1] for own in times) - started
    gaps = np.concatenate([np.diff(own) for own in times])
    return {
        "tokens_per_second": len(times) * tokens / seconds,
        "first_token_median_s": float(np.median([own[0] - started for own in times])),
        "first_token_max_s": float(max(own[0] - started for own in times)),
        "gap_median_s": float(np.median(gaps)),
        "gap_p99_s": float(np.quantile(gaps, 0.99)),
    }


async def request(address: Address, content: dict[str, Any]) -> list[float]:
    """Send a request; gives when each event of its answer with text came, or its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
    encoded = json.dumps(content).encode()
    writer.write(
        b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (address.path.encode(), len(encoded), encoded)
    )
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError((status + await reader.read()).decode())
    times = []
    while line := await reader.readline():
        if line.startswith(b"data: {") and (choices := json.loads(line[6:])["choices"]):
            if not (choices[0].get("text") or choices[0].get("delta", {}).get("content")):
                continue  # a chat's first event names the speaker, and the last one why it ends
            times.append(time.perf_counter())
    writer.close()
    return times or [time.perf_counter()]


def median_of(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def resident_mib(pid: int) -> dict[str, float]:
    """Resident and anonymous memory of the server now, MiB; empty where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return {}
    found = dict(re.findall(r"^(Rss|Anonymous):\s+(\d+) kB", text, re.MULTILINE))
    return {name.lower(): int(value) / 1024 for name, value in found.items()}


if __name__ == "__main__":
    sys.exit(main())
