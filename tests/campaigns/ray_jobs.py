"""Runs jobs, datasets and the server on a local Ray of 2 actors, and compares them with one process.

    python -m tests.campaigns.ray_jobs [--lines 600] [--rounds 3] [--seed N] [--model nano] [--out FILE]

Also when actors are killed (`kill -9`) in mid-job: the bytes are one process's, and every id is there once. Then the
speed: two actors beside two plain processes with a shard each, one thread in each, interleaved; of the middle half of a
job, so that loading is not counted. Needs the extra [ray]. Prints one JSON object, and writes it to FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as parquet
import ray

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.jobs import BatchSummary, run_batch
from sabiyarn_edge.jobs.ledger import Progress
from sabiyarn_edge.ray import BatchMapper, RayActors
from tests.campaigns.batch_kills import ROOT, write_input

ACTORS = 2
OPTIONS = {"max_new_tokens": 12, "do_sample": True, "seed": 5}
SPEED_OPTIONS = {"max_new_tokens": 24, "eos_token_id": None}


@contextmanager
def local_ray() -> Iterator[None]:
    """A Ray of this process, with as little beside the actors as can be."""
    # Ray gives its workers niceness 15: beside any other work they would hardly run, nor compare with plain processes.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # A proxy that is not there after 5 s is started anew, which on a busy machine never ends.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    ray.init(
        address="local",
        num_cpus=ACTORS,
        include_dashboard=False,
        object_store_memory=128 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        yield
    finally:
        ray.shutdown()


def actor_processes(kind: str) -> list[int]:
    """Processes of this Ray's actors of a class."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"ray::{kind}" in (folder / "cmdline").read_text(errors="replace") and _is_ours(folder.name):
                found.append(int(folder.name))
    return found


def _is_ours(process: str) -> bool:
    while process not in ("0", "1"):
        process = (Path("/proc") / process / "stat").read_text().rpartition(")")[2].split()[1]
        if process == str(os.getpid()):
            return True
    return False


def kill_one(kind: str, draw: random.Random) -> bool:
    """Kill an actor's process, if there is one."""
    processes = actor_processes(kind)
    if processes:
        os.kill(draw.choice(processes), signal.SIGKILL)
    return bool(processes)


def run_on_actors(generator: EdgeGenerator, folder: Path, output: Path, **more: Any) -> BatchSummary:
    """The job of folder/in.jsonl, answered by actors."""
    workers = RayActors(generator.folder, actors=ACTORS, rows=8)
    return run_batch(generator, folder / "in.jsonl", output, options=OPTIONS, workers=workers, **more)


def check_job(folder: Path, model: str, draw: random.Random, *, kills: int) -> dict[str, int]:
    """A job whose actors are killed so often at random moments gives one process's bytes. Needs a local Ray."""
    left = kills
    output = folder / f"ray{kills}.jsonl"
    expected = (folder / "one.jsonl").read_bytes()
    moments = sorted(draw.randrange(1, max(len(expected.splitlines()) // 2, 2)) for _ in range(kills))

    def told(progress: Progress, done: int, total: int) -> None:
        nonlocal left
        if left and progress.records >= moments[-left] and kill_one("Worker", draw):
            left -= 1

    with EdgeGenerator.from_pretrained(model, num_threads=1) as generator:
        summary = run_on_actors(generator, folder, output, told=told)
    assert output.read_bytes() == expected
    return {"records": summary.records, "kills": kills - left}


def check_resumed(folder: Path, model: str) -> dict[str, int]:
    """A job that one process began is ended by actors, with the same bytes."""

    class Stopped(Exception):
        pass

    def stop(progress: Progress, done: int, total: int) -> None:
        if progress.records == 30:
            raise Stopped

    output = folder / "resumed.jsonl"
    with EdgeGenerator.from_pretrained(model, num_threads=1) as generator:
        with suppress(Stopped):
            run_batch(generator, folder / "in.jsonl", output, options=OPTIONS, told=stop)
        summary = run_on_actors(generator, folder, output)
    assert output.read_bytes() == (folder / "one.jsonl").read_bytes()
    return {"records": summary.records, "before": summary.resumed_records}


def check_mapper(folder: Path, model: str, draw: random.Random, *, kills: int) -> dict[str, int]:
    """Rows of JSONL through BatchMapper to Parquet have one process's records, each id once."""
    rows = [
        json.loads(line)
        for line in (folder / "in.jsonl").read_text(encoding="utf-8").splitlines()
        if line.startswith("{")
    ]
    rows = list({row["id"]: row for row in rows}.values())
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with EdgeGenerator.from_pretrained(model, num_threads=1) as generator:
        run_batch(generator, rows, folder / "rows.out.jsonl", options=OPTIONS)
    ray.data.DataContext.get_current().enable_progress_bars = False
    answers = ray.data.read_json(str(folder / "rows.jsonl"), file_extensions=None).repartition(16)
    answers = answers.map_batches(
        BatchMapper,
        fn_constructor_kwargs={"model": model, "options": OPTIONS, "rows": 8},
        batch_format="pyarrow",
        batch_size=16,
        num_cpus=0.5,
        compute=ray.data.ActorPoolStrategy(size=ACTORS),
    )
    killed = threading.Event()

    def kill_soon() -> None:
        end = time.monotonic() + 120
        while not killed.is_set() and time.monotonic() < end:
            time.sleep(0.2)
            if any((folder / "answers").glob("*.parquet")) and kill_one("MapWorker", draw):
                killed.set()

    killer = threading.Thread(target=kill_soon)
    if kills:
        killer.start()
    answers.write_parquet(str(folder / "answers"))
    if kills:
        was_killed = killed.is_set()
        killed.set()
        killer.join()
    expected = {
        json.loads(line)["id"]: json.loads(line)
        for line in (folder / "rows.out.jsonl").read_text(encoding="utf-8").splitlines()
    }
    table = parquet.read_table(folder / "answers").to_pylist()
    assert sorted(row["id"] for row in table) == sorted(expected)
    for row in table:
        assert json.loads(row["record"]) == expected[row["id"]]
        assert row["answer"] == expected[row["id"]].get("text")
    return {"rows": len(table), "kills": int(was_killed) if kills else 0}


def check_serve(model: str, *, replicas: int) -> dict[str, int]:
    """Replicas behind one address answer as generate() does."""
    from ray import serve

    from sabiyarn_edge.ray.serve import deployment

    port = _free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
    try:
        serve.run(deployment(model, name="model", replicas=replicas), route_prefix="/")
        url = f"http://127.0.0.1:{port}/v1/completions"
        prompts = [f"<yor> Gbogbo {index}" for index in range(8)]
        with EdgeGenerator.from_pretrained(model, num_threads=1) as generator:
            for prompt in prompts:
                body = {"model": "model", "prompt": prompt, "max_tokens": 6, "temperature": 0}
                answer = httpx.post(url, json=body, timeout=60).raise_for_status().json()
                assert answer["choices"][0]["text"] == generator.generate(prompt, max_new_tokens=6).text
            streamed = httpx.post(url, json={**body, "stream": True}, timeout=60).text
            pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
            assert "".join(piece["choices"][0]["text"] for piece in pieces) == answer["choices"][0]["text"]
    finally:
        serve.shutdown()
    return {"requests": len(prompts) + 1, "replicas": replicas}


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# --- Speed


def warm_rate(
    run: Callable[[Callable[[Progress, int, int], None]], object], records: int
) -> tuple[float, float]:
    """Of the middle half of a job: new tokens in each second, and CPU us of this process for a record.

    Actors give blocks back: at both ends of that half about as many lines are under way.
    """
    marks: list[tuple[float, float, int, int]] = []

    def told(progress: Progress, done: int, total: int) -> None:
        if progress.records in (records // 4, 3 * records // 4):
            marks.append(
                (time.perf_counter(), time.process_time(), progress.generated_tokens, progress.records)
            )

    run(told)
    seconds, cpu_seconds, tokens, measured = (b - a for a, b in zip(*marks, strict=True))
    return tokens / seconds, 1e6 * cpu_seconds / measured


def rate_of_shard(model: str, folder: Path, shard: str) -> float:
    """Tokens in each second of a plain process."""
    with EdgeGenerator.from_pretrained(model, num_threads=1) as generator:
        return warm_rate(
            lambda told: run_batch(
                generator,
                folder / "speed.jsonl",
                folder / f"shard{shard[0]}.jsonl",
                options=SPEED_OPTIONS,
                shard=shard,
                overwrite=True,
                told=told,
            ),
            _lines_of(folder) // ACTORS,
        )[0]


def rate_of_processes(model: str, folder: Path) -> float:
    """Two plain processes with a shard each: the sum."""
    command = [sys.executable, "-m", "tests.campaigns.ray_jobs", "--shard"]
    children = [
        subprocess.Popen(
            [*command, model, str(folder), f"{index}/{ACTORS}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for index in range(1, ACTORS + 1)
    ]
    outputs = [child.communicate()[0] for child in children]
    assert not any(child.returncode for child in children)
    return sum(map(float, outputs))


def rate_of_actors(model: str, folder: Path) -> tuple[float, float]:
    """Two actors: tokens in each second, and CPU us of the job's own process for a record."""
    with EdgeGenerator.from_pretrained(model, num_threads=1) as generator:
        return warm_rate(
            lambda told: run_batch(
                generator,
                folder / "speed.jsonl",
                folder / "actors.jsonl",
                options=SPEED_OPTIONS,
                workers=RayActors(model, actors=ACTORS),
                overwrite=True,
                told=told,
            ),
            _lines_of(folder),
        )


def _lines_of(folder: Path) -> int:
    return len((folder / "speed.jsonl").read_bytes().splitlines())


def measure_speed(model: str, folder: Path, lines: int, rounds: int, draw: random.Random) -> dict[str, Any]:
    """Medians of interleaved rounds."""
    write_input(folder / "speed.jsonl", lines, draw)
    rates: dict[str, list[float]] = {"actors": [], "processes": []}
    job_us = []
    for _ in range(rounds):
        with local_ray():
            rate, record_us = rate_of_actors(model, folder)
        rates["actors"].append(rate)
        job_us.append(record_us)
        rates["processes"].append(rate_of_processes(model, folder))
    return {
        "lines": lines,
        "rounds": rounds,
        "load_average": round(os.getloadavg()[0], 1),
        **{f"{name}_tokens_per_second": round(statistics.median(found), 1) for name, found in rates.items()},
        "job_us_per_record": round(statistics.median(job_us), 1),
        "actors_of_processes": round(
            statistics.median(a / b for a, b in zip(rates["actors"], rates["processes"], strict=True)), 3
        ),
    }


def run_checks(folder: Path, model: str, lines: int, draw: random.Random) -> dict[str, Any]:
    """All comparisons. Needs a local Ray."""
    write_input(folder / "in.jsonl", lines, draw)
    with EdgeGenerator.from_pretrained(model, num_threads=1) as generator:
        run_batch(generator, folder / "in.jsonl", folder / "one.jsonl", options=OPTIONS)
    return {
        "job": check_job(folder, model, draw, kills=0),
        "killed_job": check_job(folder, model, draw, kills=2),
        "resumed_job": check_resumed(folder, model),
        "mapper": check_mapper(folder, model, draw, kills=1),
        "serve": check_serve(model, replicas=ACTORS),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=1500, help="of each job")
    parser.add_argument("--speed-lines", type=int, default=4000)
    parser.add_argument("--speed-only", action="store_true", help="keep the comparisons that FILE holds")
    parser.add_argument("--rounds", type=int, default=3, help="of the speed; 0: not measured")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--shard", nargs=3, metavar=("MODEL", "FOLDER", "SHARD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.shard:
        print(rate_of_shard(options.shard[0], Path(options.shard[1]), options.shard[2]))
        return
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    sys.stdout = sys.stderr  # what Ray says
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        if options.speed_only:
            found = json.loads(options.out.read_text())
        else:
            with local_ray():
                found = run_checks(Path(temporary), options.model, options.lines, draw)
        if options.rounds:
            found["speed"] = measure_speed(
                options.model, Path(temporary), options.speed_lines, options.rounds, draw
            )
    result = json.dumps(
        {"model": options.model, "seed": seed, "ray": ray.__version__, "equal": True, **found}
    )
    print(result, file=sys.__stdout__, flush=True)
    if options.out is not None:
        options.out.write_text(result + "\n")


if __name__ == "__main__":
    main()
