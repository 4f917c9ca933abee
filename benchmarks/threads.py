"""Measures how the threads of the matmuls wait for work: time, CPU seconds and idle CPU seconds.

Policies:
    spinning    onnxruntime's own default: wait actively, also for a while after each run
    default     ours: wait actively inside a run, sleep between runs
    low_power   low_power=True: always sleep

There is one process per policy and number of threads. All are loaded first. Their trials of STEPS tokens are
interleaved (see children.py), so that whatever else the machine does hits all alike. CPU seconds are those of all
threads of a process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.arguments import count, out_file
from benchmarks.output import put_out

PROMPT = list(range(1, 17))
STEPS = 32
IDLE_SECONDS = 0.2  # longer than any policy spins
POLICIES = ("spinning", "default", "low_power")


def serve(model: Path, policy: str, threads: int) -> None:
    """Load, then for each line on standard input generate STEPS tokens and answer with the times as JSON."""
    from sabiyarn_edge import EdgeGenerator
    from sabiyarn_edge.engine import decoder

    if policy == "spinning":
        decoder._spinning = lambda low_power: {}
    generator = EdgeGenerator.from_pretrained(model, num_threads=threads, low_power=policy == "low_power")

    def generate() -> Any:
        return generator.generate(
            PROMPT,
            max_new_tokens=STEPS + 1,
            eos_token_id=None,
            reuse_prefix=False,
            prompt_lookup_num_tokens=0,
        ).timings

    generate()  # everything is in memory from here on
    print(json.dumps({"threads": generator._engine.decoder.num_threads}), flush=True)
    for _ in sys.stdin:
        before = time.process_time()
        timings = generate()
        busy = time.process_time()
        time.sleep(IDLE_SECONDS)
        answer = {
            "ms_per_token": 1e3 * timings.decode_seconds / timings.decode_tokens,
            "cpu_ms_per_token": 1e3 * (busy - before) / (STEPS + 1),
            "idle_cpu_ms": 1e3 * (time.process_time() - busy),
        }
        print(json.dumps(answer), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="exported model folder")
    parser.add_argument(
        "--threads", type=count, nargs="+", help="default: 1, and all CPUs this process may use"
    )
    parser.add_argument("--rounds", type=count, default=20, help="trials of each (default 20)")
    parser.add_argument("--out", type=out_file, help="write the result as JSON")
    parser.add_argument("--serve", choices=POLICIES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.model, args.serve, args.threads[0])
        return 0

    from benchmarks.children import Child
    from sabiyarn_edge.bench.machine import describe_machine
    from sabiyarn_edge.bench.statistics import summary
    from sabiyarn_edge.system.cpus import usable_cpus

    children = {}
    for threads in args.threads or sorted({1, usable_cpus()}):
        for policy in POLICIES:
            if threads == 1 and policy != "default":
                continue  # one thread waits for none
            arguments = ["threads", "--serve", policy, "--model", str(args.model), "--threads", str(threads)]
            children[f"{policy}, {threads} threads"] = Child("benchmarks", arguments)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in children}
    for _ in range(args.rounds):
        for name, child in children.items():
            found[name].append(child.ask())
    for child in children.values():
        child.close()

    result: dict[str, Any] = {"benchmark": "threads", "machine": describe_machine(), "rounds": args.rounds}
    for name, answers in found.items():
        result[name] = {key: summary([answer[key] for answer in answers]) for key in answers[0]}
    put_out(result, args.out)
    return 0
