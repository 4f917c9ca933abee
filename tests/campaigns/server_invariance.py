"""Sends random requests to a server alone, and then in random mixtures: each answer must be the same, bit for bit.

    python -m tests.campaigns.server_invariance [--requests 200] [--rounds 3] [--seed 0]

Requests are of all kinds: beams, draws, several prompts and choices, streams, log-probabilities, penalties, biases,
stop strings, echo, embeddings and tasks. Each answer must also be what EdgeGenerator gives without a server. Exits with
1 at a difference, which it prints.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.tasks.family import family_tasks
from tests.export.models import export_tiny
from tests.server.conftest import SECONDS, Server, running
from tests.server.random_requests import Asked, draw_request, expected, send, told
from tests.tasks.tags import tagged_tokenizer

MOST_AT_ONCE = 20
ARGUMENTS = ("--port", "0", "--threads", "1", "--parallel", "24", "--max-queue", "500")


async def differences(
    url: str, generator: EdgeGenerator, requests: list[Asked], rounds: int, rng: random.Random
) -> list[str]:
    """What was not the same."""
    limits = httpx.Limits(max_connections=MOST_AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=SECONDS, limits=limits) as client:
        alone = [await send(client, asked) for asked in requests]
        found = [
            f"{asked}: {told(asked, answer)} is not {expected(generator, asked)}, which the generator gives"
            for asked, answer in zip(requests, alone, strict=True)
            if told(asked, answer) != expected(generator, asked)
        ]
        for _ in range(rounds):
            order = rng.sample(range(len(requests)), len(requests))
            while order:
                together = [order.pop() for _ in range(min(rng.randint(2, MOST_AT_ONCE), len(order)))]
                answers = await asyncio.gather(*(late(client, requests[index], rng) for index in together))
                found += [
                    f"{requests[index]}: {answer} is not {alone[index]}, which it is alone"
                    for index, answer in zip(together, answers, strict=True)
                    if answer != alone[index]
                ]
    return found


async def late(client: httpx.AsyncClient, asked: Asked, rng: random.Random) -> Any:
    """Requests join while others run."""
    await asyncio.sleep(rng.random() * 0.05)
    return await send(client, asked)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.server_invariance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="mixtures of all requests")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = tagged_model(Path(folder))
        generator = EdgeGenerator.from_pretrained(model, num_threads=1)
        requests = [draw_request(rng) for _ in range(arguments.requests)]
        server = Server(*ARGUMENTS, "--model", f"model={model}")
        with running(server):
            found = asyncio.run(differences(server.url, generator, requests, arguments.rounds, rng))
    fields = Counter(name for asked in requests for name in asked.body)
    print(json.dumps({"seed": arguments.seed, "requests": len(requests), "rounds": arguments.rounds,
                      "fields": dict(fields.most_common()), "differences": len(found)}, indent=1))  # fmt: skip
    print(*found[:5], sep="\n", file=sys.stderr)
    return 1 if found else 0


def tagged_model(folder: Path) -> Path:
    """A tiny model with SabiYarn's tasks."""
    tokenizer = tagged_tokenizer()
    shape = {"vocab_size": tokenizer.get_vocab_size(), "block_size": 256}
    model = export_tiny(folder, shape, kv_cache_dtype="float32", verify=False).folder
    tokenizer.save(str(model / "tokenizer.json"))
    tasks = family_tasks(lambda token: tokenizer.token_to_id(token) is not None)
    (model / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    return model


if __name__ == "__main__":
    sys.exit(main())
