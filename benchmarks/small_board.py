"""Loads and runs SabiYarn-125M's full shape (random weights) in the memory of a small board.

    sudo python -m benchmarks small_board [--model FOLDER] [--limits 512 300] [--out FILE]

For each limit (MiB of a control group: private memory and the files that are read), from a cold page cache: the peak
memory of a load and 256 tokens, how often the limit was hit, and if the process was killed, beside the prediction of
`sabiyarn-edge plan`. At the limit the system drops pages of files and reads them again later.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.arguments import out_file
from benchmarks.memory_group import memory_group
from benchmarks.output import put_out
from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.bench.machine import describe_machine

TOKENS = 256
MIB = 2**20


def random_model(folder: Path, dtype: str) -> Path:
    """Export a random checkpoint of the full shape, with 4096 positions."""
    from benchmarks.models import export  # here, since it imports torch

    return export(folder, "full", dtype, dtype=dtype)


def generate(model: Path, threads: int | None) -> dict[str, Any]:
    """Load and generate in the group's process. Times are in seconds."""
    from sabiyarn_edge.system.process_memory import process_memory

    started = time.perf_counter()
    generator = EdgeGenerator.from_pretrained(model, num_threads=threads)
    loaded = time.perf_counter()
    result = generator.generate([1, 2, 3, 4], max_new_tokens=TOKENS, eos_token_id=None)
    generated = time.perf_counter()
    assert result.sequences.shape == (1, 4 + TOKENS)
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return {
        "load_seconds": loaded - started,
        "generate_seconds": generated - loaded,
        "anonymous_mib": process_memory()["process_anonymous"] / MIB,
        "peak_resident_mib": peak_kib / 1024,
    }


def run_under(limit_mib: int, model: Path, threads: int | None) -> dict[str, Any]:
    """Run `generate` in its own process under the limit."""
    plan = EdgeGenerator.plan(model, max_length=4 + TOKENS, prompt_length=4)
    for path in model.rglob("*"):
        if path.is_file():
            drop_from_page_cache(path)
    command = [sys.executable, "-m", "benchmarks", "small_board", "--part", "generate", "--model", str(model)]
    command += ["--threads", str(threads)] if threads else []
    with memory_group(limit_mib * MIB) as group:
        done = group.run(command)
        found: dict[str, Any] = {"exit_code": done.returncode}
        if done.returncode == 0:
            found |= json.loads(done.stdout)
        else:
            found["error"] = done.stderr.strip().splitlines()[-1:]
        found |= {
            "warnings": [line for line in done.stderr.splitlines() if "Warning:" in line],
            "group_peak_mib": group.peak_bytes / MIB,
            "times_full": group.times_full,
            "killed": group.killed,
            "planned_peak_mib": plan.peak_mib,
            "planned_mapped_mib": plan.weights_mapped / MIB,
        }
    return found


def drop_from_page_cache(path: Path) -> None:
    """Drop the file's pages: otherwise they would be in memory already, charged to another group."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="an exported folder instead of a random full-shape one")
    parser.add_argument("--limits", type=int, nargs="+", default=[512, 300], metavar="MIB")
    parser.add_argument("--dtype", default="int8", help="of the random model's weights (default int8)")
    parser.add_argument("--threads", type=int, help="default: all CPUs this process may use")
    parser.add_argument("--out", type=out_file, help="write the result as JSON")
    parser.add_argument("--part", choices=("generate",), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(generate(args.model, args.threads)))
        return 0

    result: dict[str, Any] = {"benchmark": "small_board", "machine": describe_machine(), "tokens": TOKENS}
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or random_model(Path(folder), args.dtype)
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        result["model"] = {k: v for k, v in config.items() if k != "sabiyarn_edge"} | {
            name: config["sabiyarn_edge"][name] for name in ("dtype", "kv_cache_dtype", "weights_bytes")
        }
        result["limits_mib"] = {}
        for limit in sorted(args.limits, reverse=True):
            found = run_under(limit, model, args.threads)
            result["limits_mib"][str(limit)] = found
            print(f"{limit} MiB: {json.dumps(found)}", file=sys.stderr, flush=True)
    put_out(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
