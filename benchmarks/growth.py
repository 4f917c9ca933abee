"""Measures how time and memory grow with the length of a text and the number of rows, for a random SabiYarn-125M.

decode   ms per step behind 128 ... 32768 past tokens. The cache is filled with random keys and values instead of a
         computed prompt: the work of a step does not depend on their values.
batch    ms per step and tokens/s of 1 ... 16 rows of 128 tokens
prefill  seconds and peak memory of a prompt; each point is a prompt that was computed. Lengths that would not end
         within --minutes are left out and named.

python -m benchmarks growth --work FOLDER --out benchmarks/results/NAME_growth.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import count, out_file
from benchmarks.children import Child
from sabiyarn_edge.bench.bandwidth import read_bandwidth
from sabiyarn_edge.bench.engine import Engine, random_prompt
from sabiyarn_edge.bench.footprint import footprint, forget_peak
from sabiyarn_edge.bench.machine import describe_machine
from sabiyarn_edge.bench.statistics import summary
from sabiyarn_edge.bench.traffic import step_bytes
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.system.cpus import usable_cpus

LENGTHS = (128, 512, 1024, 2048, 4096, 8192, 16384, 32768)
ROWS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
ROW_LENGTH = 128
STEPS = 12
_STEPS_ONLY = GenerationConfig(
    max_new_tokens=STEPS + 1, prompt_lookup_num_tokens=0
)  # no guesses between them
NEXT_LENGTH_TAKES = (
    4.5  # a prompt of twice the length takes this many times as long: attention grows with the square
)


class Grower:
    """One export under test, in its own process."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.engine = Engine(folder, num_threads=threads)
        self._generator = self.engine.generator
        self._positions = self._generator.config.gptjx.block_size

    def decode(self, past: int) -> dict[str, Any]:
        """Time steps behind a past of random keys and values."""
        past = min(past, self._positions - STEPS - 2)
        ids = [*self._filled(past), 7]
        stream = self._generator.stream(ids, _STEPS_ONLY)
        next(stream)
        stamps = [time.perf_counter()]
        stamps += [time.perf_counter() for _ in stream]
        assert stream.result is not None
        assert stream.result.timings.reused_tokens == past
        found = {
            "past": past,
            "step_ms": [1e3 * float(step) for step in np.diff(stamps)],
            **self._memory(),
        }
        self._generator.free_kv_cache()
        return found

    def _filled(self, past: int) -> list[int]:
        """Fill the KV cache with random keys and values. Returns token ids for them."""
        rng, shape = np.random.default_rng(past), self._generator.config.gptjx
        tensor = rng.standard_normal((shape.n_heads, past, shape.head_dim), np.float32).astype(np.float16)
        keys_and_values = np.ascontiguousarray(np.broadcast_to(tensor, (shape.n_layer, 2, *tensor.shape)))
        ids = random_prompt(shape.vocab_size, past, seed=past)

        def fill() -> None:
            rows = self._generator._engine.rows
            rows.reserve(past)
            row = rows.take()
            rows.kv_cache.write(row.index, keys_and_values)
            row.tokens = list(ids)
            rows.end([row], keep=True)

        self._generator._engine.call(fill)
        return ids

    def batch(self, rows: int) -> dict[str, Any]:
        """Time steps of several rows at once."""
        prompts = [random_prompt(self.engine.vocab_size, ROW_LENGTH, seed) for seed in range(rows)]
        timings = self._generator.generate(prompts, _STEPS_ONLY).timings
        assert timings.decode_tokens == rows * STEPS
        found = {"rows": rows, "step_ms": [1e3 * timings.decode_seconds / STEPS], **self._memory()}
        self._generator.free_kv_cache()
        return found

    def prefill(self, length: int) -> dict[str, Any]:
        """Time a prompt and two tokens."""
        length = min(length, self._positions - 3)
        self._generator.free_kv_cache()
        before = footprint()
        forget_peak()
        trial = self.engine.trial(length, 2, seed=length)
        found = {
            "length": length,
            "seconds": trial.first_token_seconds,
            "tokens_per_second": length / trial.first_token_seconds,
            **self._memory(),
            "peak_bytes_above_loaded": footprint().get("peak", 0) - sum(_resident(before)),
        }
        self._generator.free_kv_cache()
        return found

    def _memory(self) -> dict[str, int]:
        usage = self._generator.memory_usage()
        return {"kv_cache_bytes": usage["kv_cache"], "anonymous_bytes": footprint().get("anonymous", 0)}


def _resident(sizes: dict[str, int]) -> Iterator[int]:
    return (size for name, size in sizes.items() if name != "peak")


def serve(folder: Path, threads: int) -> None:
    """Answer JSON lines."""
    grower = Grower(folder, threads)
    print(json.dumps(grower.engine.facts()), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(grower, request["do"])(request["size"])), flush=True)


def _options(dtype: str) -> dict[str, Any]:
    """Return the export's options. GPTQ, and measuring what to keep, would take minutes and change no timing."""
    int4 = {"rounding": "search", "keep_int8": ["lm_head", "wpe", "first"]}
    return {"dtype": dtype, **(int4 if dtype == "int4" else {})}


def _say(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def _curve(children: dict[str, Child], kind: str, sizes: list[int], rounds: int) -> dict[str, list[Any]]:
    """Rounds over sizes and exports; each point with the summary of all its steps."""
    points: dict[str, dict[int, list[dict[str, Any]]]] = {name: {} for name in children}
    for round_ in range(rounds):
        for size in sizes:
            for name, child in children.items():
                _say(f"{name}: {kind} {size}, round {round_ + 1}")
                points[name].setdefault(size, []).append(child.ask(do=kind, size=size))
    return {
        name: [
            {**found[-1], "step_ms": summary([step for one in found for step in one["step_ms"]])}
            for found in by_size.values()
        ]
        for name, by_size in points.items()
    }


def _prefills(child: Child, name: str, lengths: list[int], until: float) -> tuple[list[Any], list[int]]:
    """Points, and the lengths that there was no time for."""
    points: list[Any] = []
    for index, length in enumerate(lengths):
        if points:
            ratio = length / points[-1]["length"]
            expected = points[-1]["seconds"] * (NEXT_LENGTH_TAKES if ratio > 1.5 else 1.5)
            if time.perf_counter() + expected * max(ratio / 2, 1) > until:
                return points, lengths[index:]
        _say(f"{name}: prefill {length}")
        points.append(child.ask(do="prefill", size=length))
    return points, []


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--work", type=Path, help="folder that keeps the models")
    add(
        "--shape",
        choices=("long", "full", "small"),
        default="long",
        help="long (default): 32768 positions; full: 4096; small, to try it",
    )
    add(
        "--dtypes",
        choices=("float32", "float16", "int8", "int4"),
        nargs="+",
        default=["int8", "int4"],
        help="of the weights (int8 int4); prefill: of the first",
    )
    add("--lengths", type=count, nargs="+", default=list(LENGTHS), help="of the past and of prompts, tokens")
    add("--rows", type=count, nargs="+", default=list(ROWS), help="of the batch (1 ... 16)")
    add("--rounds", type=count, default=3, help="of decode and batch (3)")
    add("--minutes", type=float, default=13.0, help="begin no prompt that would not end within this (13)")
    add("--threads", type=count, help="default: all CPUs this process may use")
    add("--out", type=out_file, help="write the result as JSON")
    add("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    threads = args.threads or usable_cpus()
    if args.serve:
        serve(args.serve, threads)
        return 0
    if args.work is None:
        parser.error("--work FOLDER is needed")

    from benchmarks import models

    args.work.mkdir(parents=True, exist_ok=True)
    positions = models.SHAPES[args.shape]["block_size"]
    lengths = sorted({min(length, positions) for length in args.lengths})
    folders = {dtype: models.export(args.work, args.shape, dtype, **_options(dtype)) for dtype in args.dtypes}
    began = time.perf_counter()  # making models does not count
    children = {}
    for dtype, folder in folders.items():
        _say(f"{dtype}: load")
        children[dtype] = Child("benchmarks", ["growth", "--serve", str(folder), "--threads", str(threads)])
    decode = _curve(children, "decode", lengths, args.rounds)
    batch = _curve(children, "batch", sorted(args.rows), args.rounds)
    first = args.dtypes[0]
    prefill, left_out = _prefills(children[first], first, lengths, began + 60 * args.minutes)
    for child in children.values():
        child.close()
    rates = read_bandwidth(threads)
    curves = {}
    for name, child in children.items():
        facts = child.hello
        for point in decode[name]:
            floor = step_bytes(
                facts["weight_bytes_per_step"], facts["kv_bytes_per_position"], point["past"] + STEPS // 2
            )
            point["floor_ms"] = 1e3 * floor / max(rates)
        curves[name] = {
            "kv_cache_dtype": facts["kv_cache_dtype"],
            "loaded_anonymous_bytes": facts["memory"]["loaded"].get("anonymous", 0),
            "decode": decode[name],
            "batch": batch[name],
            "prefill": prefill if name == first else [],
        }
    result = {
        "benchmark": "growth",
        "machine": describe_machine(),
        "model": models.SHAPES[args.shape],
        "threads": threads,
        "row_length": ROW_LENGTH,
        "bandwidth": {"threads": threads, "best": max(rates), **summary(rates)},
        "prefill_lengths_without_time": left_out,
        "curves": curves,
    }
    text = json.dumps(result, indent=1)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    return 0
