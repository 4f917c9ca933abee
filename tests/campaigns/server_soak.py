"""Mixed traffic on one server for minutes or hours: no growth, no stuck row, no lost or doubled token.

    python -m tests.campaigns.server_soak [--minutes 60] [--clients 12] [--seed 0] [--out FILE]

Clients send random requests of all kinds, whose answers the generator gave before without a server. One in ten leaves
in the middle of a stream, one in twenty sends something that is refused. From time to time all clients pause: then
nothing may run or wait, and the server's private memory and open files are read. Exits with 1 if an answer was another
one, a row was stuck, or the memory grew by more than 4 MiB in the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.bench.machine import describe_machine
from tests.campaigns.server_invariance import tagged_model
from tests.server.conftest import SECONDS, Server, running
from tests.server.random_requests import Asked, draw_request, expected, send, told

KINDS = 120
"""Different requests; each is sent many times, in ever other company."""
LEAVING, BAD = 0.10, 0.05
DRIFT_BYTES = 4 * 2**20
PAUSES = 20
PATIENCE = 300.0
"""Seconds without a byte: a stuck row, not a slow machine."""
EDGE = 3  # pauses at either end of the second half, of which the least counts
ARGUMENTS = ("--port", "0", "--threads", "1", "--parallel", "8", "--max-queue", "200", "--prefix-cache", "4")
ENDLESS = {"prompt": "a", "max_tokens": 100_000, "overflow": "slide", "stream": True}
REFUSED: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("/v1/completions", {"prompt": ""}, 400),
    ("/v1/completions", {"prompt": "a", "top_p": 7}, 400),
    ("/v1/completions", {"prompt": "a", "num_beams": 60}, 400),
    ("/v1/completions", {"prompt": [1] * 300}, 400),
    ("/v1/completions", {"prompt": "a", "model": "other"}, 404),
    ("/v1/tasks/cleen", {"text": "a"}, 404),
    ("/v1/embeddings", {"input": [99_999]}, 400),
    ("/v1/nothing", {}, 404),
)


@dataclass
class Soak:
    """One run."""

    server: Server
    requests: list[Asked]
    answers: list[Any]
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    anonymous: list[int] = field(default_factory=list)
    """Bytes at each pause."""
    files: list[int] = field(default_factory=list)

    async def run(self, clients: int, seconds: float) -> None:
        """Clients for so long, with pauses."""
        for number in range(PAUSES):
            end = time.monotonic() + seconds / PAUSES
            rngs = [random.Random(f"{self.seed} {number} {client}") for client in range(clients)]
            await asyncio.gather(*(self._client(rng, end) for rng in rngs))
            await self._pause()

    async def _client(self, rng: random.Random, end: float) -> None:
        async with httpx.AsyncClient(base_url=self.server.url, timeout=PATIENCE) as client:
            while time.monotonic() < end:
                kind = rng.random()
                if kind < LEAVING:
                    await self._leave(client, rng)
                elif kind < LEAVING + BAD:
                    path, body, status = rng.choice(REFUSED)
                    answer = await client.post(path, json=body)
                    self.counts["refused"] += 1
                    if answer.status_code != status:
                        self.wrong.append(f"{path} {body}: {answer.status_code} {answer.text}")
                else:
                    await self._ask(client, rng.randrange(len(self.requests)))

    async def _ask(self, client: httpx.AsyncClient, index: int) -> None:
        asked = self.requests[index]
        self.counts["streams" if asked.body.get("stream") else "whole answers"] += 1
        try:
            found = told(asked, await send(client, asked))
        except Exception as error:  # a finding
            found = repr(error)
        if found != self.answers[index]:
            self.wrong.append(f"{asked}: {found} is not {self.answers[index]}")

    async def _leave(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        """Read some of a stream that would never end."""
        left = rng.randint(0, 30)
        async with client.stream("POST", "/v1/completions", json=ENDLESS) as answer:
            async for _ in answer.aiter_lines():
                left -= 1
                if left < 0:
                    break
        self.counts["left"] += 1

    async def _pause(self) -> None:
        """Wait until nothing runs, and look at the process."""
        end = time.monotonic() + SECONDS
        while self.server.metric("requests_running") + self.server.metric("requests_waiting"):
            if time.monotonic() > end:
                self.wrong.append("a row is stuck: something runs though nobody asks")
                return
            await asyncio.sleep(0.05)
        process = Path(f"/proc/{self.server.process.pid}")
        self.files.append(len(list((process / "fd").iterdir())))
        for line in (process / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Anonymous:"):
                self.anonymous.append(int(line.split()[1]) * 1024)

    def drift(self) -> int:
        """Bytes by which the process grew in the second half."""
        warm = self.anonymous[len(self.anonymous) // 2 :]
        return min(warm[-EDGE:]) - min(warm[:EDGE])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.server_soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the JSON there")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = tagged_model(Path(folder))
        requests = [draw_request(rng) for _ in range(KINDS)]
        with EdgeGenerator.from_pretrained(model, num_threads=1) as generator:
            answers = [expected(generator, asked) for asked in requests]
        server = Server(*ARGUMENTS, "--model", f"model={model}")
        with running(server):
            soak = Soak(server, requests, answers, arguments.seed)
            asyncio.run(soak.run(arguments.clients, 60 * arguments.minutes))
    report = {
        "minutes": arguments.minutes,
        "clients": arguments.clients,
        "seed": arguments.seed,
        "requests": dict(soak.counts),
        "wrong": len(soak.wrong),
        "first_wrong": soak.wrong[:5],
        "anonymous_mib": [round(nbytes / 2**20, 2) for nbytes in soak.anonymous],
        "drift_mib": round(soak.drift() / 2**20, 2),
        "open_files": soak.files,
        **describe_machine(("sabiyarn-edge", "onnxruntime", "starlette", "uvicorn")),
    }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    return 1 if soak.wrong or soak.drift() > DRIFT_BYTES or soak.files[-1] > soak.files[0] + 4 else 0


if __name__ == "__main__":
    sys.exit(main())
