"""Texts longer than the model's positions: sliding beside cropping at every token, and prompts longer than kv_window.

    python -m benchmarks overflow [--model FOLDER] [--times 5] [--out FILE]

"slide" generates TIMES * block_size tokens with overflow="slide", which runs half the positions again whenever they are
used up. "crop" keeps the newest block_size - 1 tokens before every token, so that each token has a new position in
each step and all are run again: the policy of generate loops that know no other. It is timed over few tokens, once the
positions are used up, interleaved with slides. Both are greedy.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import count, out_file
from benchmarks.output import put_out

CROPPED = 24  # tokens of one trial
WINDOW_PART = 4  # kv_window is block_size / 4 for the prompt that is longer than it


def slide(model: str | Path, tokens: list[int], times: int) -> dict[str, Any]:
    """Generate past the positions and say what a token took."""
    from sabiyarn_edge import EdgeGenerator

    generator = EdgeGenerator.from_pretrained(model, overflow="slide", keep_tokens=4)
    block_size = generator.config.gptjx.block_size
    before = generator.memory_usage().get("process_anonymous", 0)
    result = generator.generate(tokens, max_new_tokens=times * block_size, eos_token_id=None)
    usage, timings = generator.memory_usage(), result.timings
    return {
        "ms_per_token": 1e3 * timings.decode_seconds / timings.decode_tokens,
        "of_it_reruns_ms": 1e3 * timings.rerun_seconds / timings.decode_tokens,
        "reruns": timings.reruns,
        "rerun_tokens": timings.rerun_tokens,
        "tokens": timings.decode_tokens,
        "kv_cache_bytes": usage["kv_cache"],
        "anonymous_growth_bytes": usage.get("process_anonymous", 0) - before,
    }


def crop(model: str | Path, tokens: list[int]) -> dict[str, Any]:
    """Run the newest block_size - 1 tokens anew for each token."""
    from sabiyarn_edge import EdgeGenerator

    generator = EdgeGenerator.from_pretrained(model, reuse_prefix=False)
    block_size = generator.config.gptjx.block_size
    text = (tokens * block_size)[:block_size]
    taken = []
    for _ in range(CROPPED):
        started = time.perf_counter()
        result = generator.generate(text[-(block_size - 1) :], max_new_tokens=1, eos_token_id=None)
        taken.append(time.perf_counter() - started)
        text.append(result.generated[0][0])
    return {"ms_per_token": 1e3 * statistics.median(taken), "tokens": CROPPED}


def window(model: str | Path, tokens: list[int]) -> dict[str, Any]:
    """A prompt of which kv_window holds a part: what a token takes within it and beyond."""
    from sabiyarn_edge import EdgeGenerator

    block_size = EdgeGenerator.from_pretrained(model).config.gptjx.block_size
    size = block_size // WINDOW_PART
    generator = EdgeGenerator.from_pretrained(model, kv_window=size, reuse_prefix=False)
    taken = {}
    for length in (size, 2 * size):
        prompt = (tokens * length)[:length]
        generator.generate(prompt, max_new_tokens=1)
        taken[length] = generator.generate(prompt, max_new_tokens=1).timings.prefill_seconds
    return {
        "kv_window": size,
        "within_ms_per_token": 1e3 * taken[size] / size,
        "beyond_ms_per_token": 1e3 * (taken[2 * size] - taken[size]) / size,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano", help="model folder (default: the bundled nano)")
    parser.add_argument(
        "--times", type=count, default=5, help="tokens to generate, in block_size (default 5)"
    )
    parser.add_argument(
        "--trials", type=count, default=3, help="trials of each; the result has their medians (default 3)"
    )
    parser.add_argument("--out", type=out_file, help="write the result as JSON to this file too")
    args = parser.parse_args()

    from sabiyarn_edge.bench.machine import describe_machine
    from sabiyarn_edge.generator import find_model
    from sabiyarn_edge.model_folder.config import ModelConfig

    shape = ModelConfig.load(find_model(args.model)).gptjx
    tokens = np.random.default_rng(0).integers(1, shape.vocab_size, 16).tolist()
    trials: dict[str, list[dict[str, Any]]] = {"slide": [], "crop": [], "window": []}
    for _ in range(args.trials):
        trials["slide"].append(slide(args.model, tokens, args.times))
        trials["crop"].append(crop(args.model, tokens))
        trials["window"].append(window(args.model, tokens))
    figures = {
        name: {field: statistics.median(trial[field] for trial in found) for field in found[0]}
        for name, found in trials.items()
    }
    result = {
        "benchmark": "overflow",
        "machine": describe_machine(),
        "model": {
            "name": Path(args.model).name,
            "block_size": shape.block_size,
            "n_layer": shape.n_layer,
            "n_embd": shape.n_embd,
        },
        **figures,
        "slide_is_faster_by": figures["crop"]["ms_per_token"] / figures["slide"]["ms_per_token"],
    }
    put_out(result, args.out)
    return 0
