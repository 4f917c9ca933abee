"""Export, load and run a checkpoint of SabiYarn-125M's full shape (random weights) and measure each part.

Every figure comes from processes of its own, so that nothing is warm that a user would find cold:
    memory    anonymous memory above `import onnxruntime` after loading, and after generating 256 tokens
    decode    ms per step at 128 past tokens, and of it what is spent outside session.run
    prefill   tokens/s for prompts of 16, 128 and 1024 tokens
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

PAST_TOKENS = 128
STEPS = 48
PROMPT_LENGTHS = (16, 128, 1024)


class TimedSession:
    """An onnxruntime session that adds up the time spent in its runs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.seconds = 0.0
        self.runs = 0

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        started = time.perf_counter()
        self._session.run_with_iobinding(binding, options)
        self.seconds += time.perf_counter() - started
        self.runs += 1


def anonymous_mib() -> float:
    from sabiyarn_edge.memory import process_memory

    return process_memory()["process_anonymous"] / 2**20


def measure_memory(model: Path, threads: int | None) -> dict[str, float]:
    import onnxruntime  # noqa: F401  (its own memory is the base line)

    from sabiyarn_edge import EdgeGenerator

    base = anonymous_mib()
    started = time.perf_counter()
    generator = EdgeGenerator.from_pretrained(model, num_threads=threads)
    load_seconds = time.perf_counter() - started
    loaded = anonymous_mib() - base
    generator.generate([1, 2, 3, 4], max_new_tokens=256, eos_token_id=None)
    usage = generator.memory_usage()
    return {
        "load_seconds": load_seconds,
        "anonymous_mib_after_load": loaded,
        "anonymous_mib_after_256_tokens": anonymous_mib() - base,
        "kv_cache_mib": usage["kv_cache"] / 2**20,
    }


def measure_speed(model: Path, threads: int | None, rounds: int) -> dict[str, Any]:
    import numpy as np

    from sabiyarn_edge import EdgeGenerator, GenerationConfig
    from sabiyarn_edge._core import DecodeState
    from sabiyarn_edge._decode import DecodeLoop
    from sabiyarn_edge.decode_options import decode_options

    generator = EdgeGenerator.from_pretrained(model, num_threads=threads)
    session = generator._session
    timed = TimedSession(session._session)
    session.runner = session._make_runner(timed)
    vocab_size = session.config.gptjx.vocab_size
    rng = np.random.default_rng(0)

    steps, outside = [], []
    prefill: dict[int, list[float]] = {length: [] for length in PROMPT_LENGTHS}
    config = GenerationConfig(max_new_tokens=STEPS + 1)
    for _ in range(rounds):
        for length in PROMPT_LENGTHS:
            prompt = rng.integers(0, vocab_size, length).tolist()
            started = time.perf_counter()
            session.prefill([prompt])
            prefill[length].append(length / (time.perf_counter() - started))
        prompt = rng.integers(0, vocab_size, PAST_TOKENS - STEPS // 2).tolist()  # 128 in the middle
        native = decode_options(
            config, prompts=[prompt], vocab_size=vocab_size, max_positions=1024, tokenizer=None
        )
        state = DecodeState(native, vocab_size, [prompt])
        session.prefill([prompt])
        loop = DecodeLoop(state, session.runner)
        loop.select()
        while True:
            started, inside = time.perf_counter(), timed.seconds
            loop.compute()
            ended = loop.select()
            total = time.perf_counter() - started
            steps.append(1e3 * total)
            outside.append(1e6 * (total - (timed.seconds - inside)))
            if ended:
                break
    cuts = quantiles(steps, n=10)
    return {
        "decode_ms_per_token": {"median": median(steps), "p10": cuts[0], "p90": cuts[-1]},
        "outside_session_run_us": median(outside),
        "prefill_tokens_per_second": {str(length): median(prefill[length]) for length in PROMPT_LENGTHS},
        "threads": session.num_threads,
    }


def make_model(folder: Path, block_size: int, kv_cache_dtype: str, dtype: str) -> tuple[Path, float]:
    """A random checkpoint of the full shape as a Hugging Face folder, and its export: (folder, export seconds)."""
    import torch

    from sabiyarn_edge.export import export_model
    from sabiyarn_edge.modeling import GPTJXConfig, GPTJXForCausalLM

    torch.manual_seed(0)
    checkpoint = folder / "checkpoint"
    GPTJXForCausalLM(GPTJXConfig(block_size=block_size), j_bias=True).save_pretrained(checkpoint)
    started = time.perf_counter()
    export_model(checkpoint, folder / "model", dtype=dtype, kv_cache_dtype=kv_cache_dtype)
    return folder / "model", time.perf_counter() - started


def in_child(part: str, model: Path, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks", "end_to_end", "--part", part, "--model", str(model)]
    command += ["--rounds", str(args.rounds)] + (["--threads", str(args.threads)] if args.threads else [])
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, help="measure this exported folder instead of a random full-shape one"
    )
    parser.add_argument(
        "--block-size", type=int, default=4096, help="positions of the random model (default 4096)"
    )
    parser.add_argument("--dtype", default="float32", help="of the random model's weights (default float32)")
    parser.add_argument("--kv-cache-dtype", default="float16", choices=("float16", "float32"))
    parser.add_argument("--threads", type=int, help="default: all CPUs this process may use")
    parser.add_argument(
        "--rounds", type=int, default=5, help="repetitions of which medians are taken (default 5)"
    )
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--part", choices=("memory", "speed"), help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.part == "memory":
        print(json.dumps(measure_memory(args.model, args.threads)))
        return 0
    if args.part == "speed":
        print(json.dumps(measure_speed(args.model, args.threads, args.rounds)))
        return 0

    from benchmarks.machine import describe

    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"benchmark": "end_to_end", "machine": describe()}
        model = args.model
        if model is None:
            model, seconds = make_model(Path(folder), args.block_size, args.kv_cache_dtype, args.dtype)
            result["export_seconds"] = seconds
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        result["model"] = {k: v for k, v in config.items() if k != "sabiyarn_edge"} | {
            name: config["sabiyarn_edge"][name] for name in ("dtype", "kv_cache_dtype")
        }
        result |= in_child("memory", model, args) | in_child("speed", model, args)
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
