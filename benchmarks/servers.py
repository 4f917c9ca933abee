"""Streams from this package's server, llama-cpp-python's and transformers', at several loads.

All serve the same random matrices in 8 bits (transformers: float32) with the same vocabulary and threads. Each round
starts each server anew, warms it up with one stream, and then opens N streams at once for each load N. The client is
this process, on the same CPUs, over loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.arguments import count, out_file
from benchmarks.output import put_out
from benchmarks.serve_load import median_of, request, resident_mib, running, serve_command, stream_figures
from sabiyarn_edge.bench.machine import PACKAGES, describe_machine


@dataclass(frozen=True)
class Rival:
    """One server."""

    package: str
    """Whose version is told."""
    command: Callable[[Path, str, int, int, int], list[str]]
    """Starts it, given the work folder, the model's shape, the port, the threads and the most streams at once."""
    ready: str
    """The path that answers when it is."""
    path: str
    ask: Callable[[str, int, str], dict[str, Any]]
    """The request's body, of a prompt, the number of tokens and the model's name."""
    note: str = ""


def _ours(work: Path, shape: str, port: int, threads: int, streams: int) -> list[str]:
    folder = models.with_tokenizer(models.export(work, shape, "int8", dtype="int8"), shape)
    return serve_command(folder, port, streams, threads)


def _llama_cpp(work: Path, shape: str, port: int, threads: int, streams: int) -> list[str]:
    options = {
        "--model": models.gguf_file(work, shape, "Q8_0", text=True),
        "--model_alias": "model",
        "--port": port,
        "--n_threads": threads,
        "--n_threads_batch": threads,
        "--n_ctx": models.SHAPES[shape]["block_size"],
        "--interrupt_requests": "False",  # else each new stream ends the one before
    }
    return [sys.executable, "-m", "llama_cpp.server", *(str(x) for pair in options.items() for x in pair)]


def _transformers(work: Path, shape: str, port: int, threads: int, streams: int) -> list[str]:
    folder = models.gpt2_folder(work, shape, text=True)
    program = "import sys; from transformers.commands.transformers_cli import main; sys.exit(main())"
    return [sys.executable, "-c", program, "serve", "--port", str(port), "--force_model", str(folder)]


def _completion(prompt: str, tokens: int, model: str) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}


def _chat(prompt: str, tokens: int, model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True}


RIVALS = {
    "sabiyarn_edge int8": Rival("sabiyarn-edge", _ours, "/health", "/v1/completions", _completion),
    "llama-cpp-python Q8_0": Rival(
        "llama-cpp-python",
        _llama_cpp,
        "/v1/models",
        "/v1/completions",
        _completion,
        "one stream after the other",
    ),
    "transformers serve float32": Rival(
        "transformers", _transformers, "/health", "/v1/chat/completions", _chat, "a thread for each stream"
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="for the models")
    parser.add_argument("--shape", choices=("full", "small"), default="full", help="default: %(default)s")
    parser.add_argument(
        "--loads", type=count, nargs="+", default=[1, 4, 8, 20], metavar="N", help="streams at once"
    )
    parser.add_argument("--tokens", type=count, default=32, metavar="N", help="of each stream (default 32)")
    parser.add_argument(
        "--prompt", type=count, default=16, metavar="N", help="tokens of a prompt (default 16)"
    )
    parser.add_argument("--rounds", type=count, default=3, metavar="N", help="rounds (default 3)")
    parser.add_argument("--threads", type=count, default=2, metavar="N", help="threads (default 2)")
    parser.add_argument("--out", type=out_file, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)

    machine = describe_machine([*PACKAGES, *(rival.package for rival in RIVALS.values())])
    skipped = {
        name: f"{rival.package} is not installed"
        for name, rival in RIVALS.items()
        if rival.package not in machine["versions"]
    }
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in RIVALS if name not in skipped}
    for round_ in range(arguments.rounds):
        names = list(measured)
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            print(f"round {round_ + 1} of {arguments.rounds}: {name}", file=sys.stderr)
            measured[name].append(_measure(RIVALS[name], arguments, round_))
    result = {
        "benchmark": "servers",
        "machine": machine,
        "threads": arguments.threads,
        "asked": {
            name: getattr(arguments, name) for name in ("shape", "loads", "tokens", "prompt", "rounds")
        },
        "servers": {
            name: {
                "note": RIVALS[name].note,
                "loads": {
                    str(load): median_of([found["loads"][load] for found in rounds])
                    for load in arguments.loads
                },
                "resident_mib": statistics.median(found["resident_mib"] for found in rounds),
            }
            for name, rounds in measured.items()
        },
        "skipped": skipped,
    }
    put_out(result, arguments.out)
    return 0


def _measure(rival: Rival, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """All loads on one server."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("cdefghijklmnopqrstuvwxyz"))  # a token each: the only pair that merges is "ab"

    def prompt() -> str:
        return "".join(rng.choice(letters, arguments.prompt))

    work, shape, threads, most = (
        arguments.work.resolve(),
        arguments.shape,
        arguments.threads,
        max(arguments.loads),
    )
    with running(
        lambda port: rival.command(work, shape, port, threads, most),
        ready=rival.ready,
        path=rival.path,
        environment={"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
    ) as address:

        async def streams(number: int) -> dict[str, float]:
            started = time.perf_counter()
            bodies = [rival.ask(prompt(), arguments.tokens, "model") for _ in range(number)]
            times = await asyncio.gather(*(request(address, body) for body in bodies))
            return stream_figures(started, times, arguments.tokens)

        asyncio.run(streams(1))
        loads = {load: asyncio.run(streams(load)) for load in arguments.loads}
        return {"loads": loads, "resident_mib": resident_mib(address.pid)["rss"]}


if __name__ == "__main__":
    sys.exit(main())
