"""Greedy tokens of exported mixtures of experts beside those of a torch oracle that computes every expert.

    python -m tests.campaigns.routed_parity --cases 2000

A case is a random prompt of a random model: 1 to 8 experts, 1 to all of them for each token, layers with different
numbers, several widths. Exports are float32 with a float32 KV cache. Each token must be the oracle's.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.export import export_model
from tests.data.make_tiny_checkpoint import EXPERTS, SHAPE, make_tiny_checkpoint, random_tensors, tensor_shape
from tests.every_expert import EveryExpert

SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"num_experts": 8, "num_experts_per_tok": 1, "moe_dim": 24},
    {"num_experts": 1, "num_experts_per_tok": 1, "n_layer": 3},
    {"num_experts": 3, "num_experts_per_tok": 3, "n_heads": 3, "n_embd": 48},
    {"num_experts": 8, "num_experts_per_tok": 8, "moe_dim": 8},
    {"num_experts": 5, "expert_per_layer": {"0": 2, "2": 8}, "n_layer": 3, "n_embd": 32, "bias": True},
    {"num_experts": 2, "num_experts_per_tok": 2, "j_bias": False, "vocab_size": 1009},
    {"expert_per_layer": {"0": 2, "1": 3}, "n_layer": 4, "n_embd": 64, "moe_dim": 200},
)
PROMPTS, NEW_TOKENS = 32, 10
"""Of each model: rows that run together, and the tokens behind each."""


def differences(folder: Path, shape: dict[str, Any], seed: int) -> Iterator[str]:
    """Export one random model, and say for each prompt whose tokens are not the oracle's which they are."""
    shape = {"use_moe": True, **shape}
    source = make_tiny_checkpoint(folder / f"checkpoint-{seed}", seed=seed, **shape)
    out = folder / f"model-{seed}"
    export_model(source, out, dtype="float32", kv_cache_dtype="float32", verify=False, progress=False)
    tensors = random_tensors(seed=seed, j_bias=shape.get("j_bias", True), **tensor_shape(shape))
    full = {**SHAPE, **EXPERTS, **shape}
    oracle, rng = EveryExpert(tensors, full), np.random.default_rng(seed)
    with EdgeGenerator.from_pretrained(out, num_threads=1) as generator:
        lengths = rng.integers(1, 24, PROMPTS // 8)
        for length in lengths:
            prompts = rng.integers(full["vocab_size"], size=(8, length))
            expected = oracle.greedy(torch.from_numpy(prompts), NEW_TOKENS).numpy()
            found = generator.generate(prompts.tolist(), max_new_tokens=NEW_TOKENS).sequences
            for ours, theirs in zip(found, expected, strict=True):
                if ours.tolist() != theirs.tolist():
                    yield f"seed {seed}, {shape}: {ours.tolist()} instead of {theirs.tolist()}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2000, help="prompts (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first model (default 0)")
    args = parser.parse_args()
    wrong = 0
    models = -(-args.cases // PROMPTS)
    for seed, shape in zip(range(args.seed, args.seed + models), itertools.cycle(SHAPES), strict=False):
        with tempfile.TemporaryDirectory() as folder:
            for line in differences(Path(folder), shape, seed):
                wrong += 1
                print(line, flush=True)
    print(f"{models * PROMPTS} cases of {NEW_TOKENS} tokens, {wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
