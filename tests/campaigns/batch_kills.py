"""Kills batch jobs at random moments (`kill -9`) until they are done, and compares their bytes with a whole run's.

    python -m tests.campaigns.batch_kills [--kills 50] [--seed N] [--model nano] [--out FILE]

Each job draws tokens for lines of many lengths. It is killed between 0 and 1.5 seconds after its first record, again
and again; the same command then goes on. Checkpoints are a tenth of a second apart, so that each kill finds some.
Prints one JSON object, and writes it to FILE.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.jobs import job, run_batch
from sabiyarn_edge.jobs.ledger import Progress

ROOT = Path(__file__).parents[2]
LONGEST_LIFE = 1.5  # seconds after the first record
OPTIONS = {"max_new_tokens": 12, "do_sample": True, "seed": 5}
TEXT = "gbogbo ènìyàn ni a bí ní òmìnira iyì àti ẹ̀tọ́ kọ̀ọ̀kan sì dọ́gba wọ́n ní ẹ̀bùn"


def write_input(file: Path, lines: int, draw: random.Random) -> None:
    """JSONL with ids, a few of them twice, and a few lines that are none."""
    records = []
    for index in range(lines):
        text = " ".join(draw.choices(TEXT.split(), k=draw.randrange(1, 12)))
        name = f"line {index if draw.random() > 0.02 else 0}"
        records.append("no JSON" if draw.random() < 0.02 else json.dumps({"id": name, "prompt": text}))
    file.write_text("\n".join(records) + "\n", encoding="utf-8")


def run_to_the_end(folder: Path, model: str, output: str) -> None:
    """Run the job. Says when it begins to write."""
    job.CHECKPOINT_SECONDS = 0.1
    said = False

    def told(progress: Progress, done: int, total: int) -> None:
        nonlocal said
        if not said:
            print("running", flush=True)
            said = True

    with EdgeGenerator.from_pretrained(model, num_threads=1) as generator:
        run_batch(generator, folder / "in.jsonl", folder / output, options=OPTIONS, told=told)


def kill_until_done(folder: Path, model: str, output: str, most: int, draw: random.Random) -> int:
    """Kill a job up to `most` times, then let it end. Returns: how often it was killed."""
    command = [sys.executable, "-m", "tests.campaigns.batch_kills", "--run", str(folder), model, output]
    for kills in range(most):
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == "running\n"
            time.sleep(draw.uniform(0, LONGEST_LIFE))
            child.kill()
        if child.wait() != -signal.SIGKILL:  # it was faster
            return kills
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return most


def run_campaign(kills: int, seed: int, model: str, lines: int) -> dict[str, object]:
    """Kill jobs so often in all. Raises: AssertionError if one gave other bytes."""
    draw = random.Random(seed)
    done, jobs, resumed = 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        while done < kills:
            write_input(folder / "in.jsonl", lines, draw)
            run_to_the_end(folder, model, f"whole{jobs}.jsonl")
            output = f"out{jobs}.jsonl{'.gz' if jobs % 2 else ''}"
            done += kill_until_done(folder, model, output, min(10, kills - done), draw)
            expected = (folder / f"whole{jobs}.jsonl").read_bytes()
            stored = (folder / output).read_bytes()
            assert (gzip.decompress(stored) if jobs % 2 else stored) == expected, f"seed {seed}, job {jobs}"
            resumed += len(expected.splitlines())
            jobs += 1
    return {"kills": done, "jobs": jobs, "records": resumed, "seed": seed, "model": model, "equal": True}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="in all")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--lines", type=int, default=1500, help="of each job")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--run", nargs=3, metavar=("FOLDER", "MODEL", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("error")
    if options.run:
        run_to_the_end(Path(options.run[0]), options.run[1], options.run[2])
        return
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    sys.stdout = sys.stderr  # what the whole runs say
    result = json.dumps(run_campaign(options.kills, seed, options.model, options.lines))
    print(result, file=sys.__stdout__, flush=True)
    if options.out is not None:
        options.out.write_text(result + "\n")


if __name__ == "__main__":
    main()
