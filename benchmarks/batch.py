"""Batch jobs: their throughput beside generate(), and what the length of the file costs.

    python -m benchmarks batch [--model FOLDER] [--lines 1024] [--rounds 3] [--corpus 1000000] [--out FILE]

Throughput: the same prompts of 4 to 23 words, 24 new tokens each, as a job, as calls of generate() with each batch
size, and one by one; interleaved, medians. Few prompts show what a job costs at its beginning and end, some writes to
the disk. Corpus: a job whose lines (ids included) need no model, so that the job
itself is measured: private memory after 100 lines and after many, the time that each line takes, and the time to resume
behind the last of them.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from benchmarks.arguments import count, out_file
from benchmarks.output import put_out
from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.bench.machine import describe_machine
from sabiyarn_edge.jobs import run_batch
from sabiyarn_edge.jobs.batch import open_files
from sabiyarn_edge.jobs.job import Planned, Record, resume, run_job
from sabiyarn_edge.jobs.ledger import Ledger, Progress
from sabiyarn_edge.jobs.source import Line
from sabiyarn_edge.jobs.window import Window
from sabiyarn_edge.system.process_memory import process_memory

WORDS = "gbogbo ènìyàn ni a bí ní òmìnira iyì àti ẹ̀tọ́ kọ̀ọ̀kan sì dọ́gba"
OPTIONS = {"max_new_tokens": 24, "eos_token_id": None}
BATCH_SIZES = (16, 32, 64, 128)
ONE_BY_ONE = 24  # prompts of one trial
MIB = 2**20


def measure_throughput(model: str, lines: int, rounds: int) -> dict[str, float]:
    """Prompts in each second, by each way."""
    draw = random.Random(1)
    prompts = [
        "<yor> " + " ".join(draw.choices(WORDS.split(), k=draw.randrange(4, 24))) for _ in range(lines)
    ]
    generator = EdgeGenerator.from_pretrained(model)

    def as_job() -> int:
        with tempfile.TemporaryDirectory() as folder:
            return run_batch(generator, prompts, f"{folder}/out.jsonl", options=OPTIONS).records

    def in_batches(size: int) -> int:
        for first in range(0, lines, size):
            generator.generate(prompts[first : first + size], **OPTIONS)
        return lines

    def one_by_one() -> int:
        for prompt in prompts[:ONE_BY_ONE]:
            generator.generate(prompt, **OPTIONS)
        return min(ONE_BY_ONE, lines)

    ways: dict[str, Callable[[], int]] = {"job": as_job, "one_by_one": one_by_one}
    for size in BATCH_SIZES:
        ways[f"generate_{size}"] = lambda size=size: in_batches(size)  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in ways}
    as_job()
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            taken[name].append(way() / (time.perf_counter() - started))
    found = {name: statistics.median(values) for name, values in taken.items()}
    best = max(found[f"generate_{size}"] for size in BATCH_SIZES)
    return {
        **found,
        "job_of_best_batch": found["job"] / best,
        "job_of_one_by_one": found["job"] / found["one_by_one"],
    }


class _Echo:
    """A job that needs no model."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def plan(self, line: Line) -> Planned:
        content = json.loads(line.content or b"")
        self._ledger.add_id(json.dumps(content["id"]), line.number)
        record = Record(json.dumps({"id": content["id"], "text": content["prompt"]}).encode() + b"\n")
        return Planned((), lambda outcomes: record, lambda error: record)


def run_corpus(folder: Path, lines: int) -> dict[str, float]:
    """Run the job but for its last line, and then that one."""
    with (folder / f"{lines}.jsonl").open("w") as file:
        for index in range(lines):
            file.write(json.dumps({"id": f"line-{index:08}", "prompt": "a short line of text"}) + "\n")
    most = 0

    def told(progress: Progress, done: int) -> None:
        nonlocal most
        if progress.records % 10_000 == 0:
            most = max(most, process_memory().get("process_anonymous", 0))
        if progress.records == lines - 1:
            raise StopIteration

    started = time.perf_counter()
    with suppress(StopIteration):
        _run(folder, lines, told)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    _run(folder, lines, lambda progress, done: None)
    resumed = time.perf_counter() - started
    most = max(most, process_memory().get("process_anonymous", 0))
    return {
        "lines": lines,
        "us_per_line": 1e6 * seconds / lines,
        "resume_seconds": resumed,
        "private_mib": most / MIB,
    }


def _run(folder: Path, lines: int, told: Callable[[Progress, int], object]) -> None:
    with ExitStack() as stack:
        source, output, ledger = open_files(
            stack, folder / f"{lines}.jsonl", folder / f"{lines}.out.jsonl", overwrite=False
        )
        progress = resume(ledger, source, output, {"work": "echo"}, b"")
        run_job(_Echo(ledger), source, output, ledger, progress, Window(32, 2**20, 512), told=told)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano", help="model folder (default: the bundled nano)")
    parser.add_argument("--lines", type=count, default=1024, help="prompts of the throughput (default 1024)")
    parser.add_argument("--rounds", type=count, default=3, help="trials of each way (default 3)")
    parser.add_argument(
        "--corpus", type=count, default=1_000_000, help="lines without a model (default 1000000)"
    )
    parser.add_argument("--out", type=out_file, help="write the result as JSON to this file too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = [run_corpus(Path(folder), lines) for lines in (100, args.corpus)]
    result: dict[str, Any] = {
        "benchmark": "batch",
        "machine": describe_machine(),
        "model": Path(args.model).name,
        "prompts": args.lines,
        "rounds": args.rounds,
        "prompts_per_second": measure_throughput(args.model, args.lines, args.rounds),
        "corpus": corpus,
    }
    put_out(result, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
