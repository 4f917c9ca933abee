"""Tokens that every CPU must choose: the cases, and the maker of golden_tokens.json.

    python -m tests.campaigns.arm.golden      writes golden_tokens.json anew (needs torch; compare before committing)

Greedy tokens come from the NumPy oracle, by full forward passes in float64. The others come from EdgeGenerator on
x86-64: draws of seeded generators and beams have no second implementation here that is exact (tests/decoding compares
beams with transformers).
"""

from __future__ import annotations

import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sabiyarn_edge import EdgeGenerator
from tests.export.models import Exported, export_tiny

GOLDEN = Path(__file__).with_name("golden_tokens.json")

SHAPE = {"vocab_size": 1009, "n_embd": 64, "n_heads": 4, "n_layer": 2, "block_size": 400}
MARGIN = 1e-3
"""The two best logits of every greedy step differ by more. Sums in another order change logits by about 5e-6."""

SAMPLING = {"do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 0.95, "num_return_sequences": 3}
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"prompts": [5], "new": 60},
    "greedy, the KV cache grows": {"prompts": [250], "new": 24},
    "greedy, rows of unequal length": {"prompts": [1, 17, 40], "new": 24},
    "greedy, repetition penalty": {"prompts": [12], "new": 40, "options": {"repetition_penalty": 1.3}},
    "window of 32": {"prompts": [32, 9], "new": 80, "settings": {"kv_window": 32, "num_sink_tokens": 2}},
    "beams": {"prompts": [9, 30], "new": 30, "options": {"num_beams": 5, "num_return_sequences": 5}},
    "beams, length penalty": {
        "prompts": [9],
        "new": 40,
        "options": {
            "num_beams": 4,
            "length_penalty": 1.4,
            "no_repeat_ngram_size": 2,
            "eos_token_id": [3, 77],
        },
    },
    "sampling": {"prompts": [7, 21], "new": 50, "options": {**SAMPLING, "seed": 7}},
    "sampling, typical and min_p": {
        "prompts": [7],
        "new": 50,
        "options": {**SAMPLING, "top_k": 0, "typical_p": 0.9, "min_p": 0.01, "seed": 2024},
    },
    "sampled beams": {"prompts": [11], "new": 25, "options": {"num_beams": 3, "do_sample": True, "seed": 5}},
}
BY_ORACLE = [name for name, case in CASES.items() if name.startswith("greedy") and "options" not in case]


def golden_model(folder: Path, **options: Any) -> Exported:
    """The model of all cases, exported into `folder`; in float32 where `options` say nothing else."""
    return export_tiny(folder, SHAPE, **{"kv_cache_dtype": "float32", **options})


def prompts_of(name: str) -> list[list[int]]:
    """Random token ids, of the lengths that the case names."""
    rng = np.random.default_rng(sorted(CASES).index(name))
    return [rng.integers(0, SHAPE["vocab_size"], length).tolist() for length in CASES[name]["prompts"]]


def generate(folder: Path, name: str) -> list[list[int]]:
    """The new tokens of each row of a case."""
    case = CASES[name]
    generator = EdgeGenerator.from_pretrained(folder, num_threads=1, **case.get("settings", {}))
    result = generator.generate(prompts_of(name), max_new_tokens=case["new"], **case.get("options", {}))
    return result.generated


def by_oracle(exported: Exported, name: str) -> list[list[int]]:
    """The same for a greedy case by the NumPy oracle. Raises ValueError when a choice was closer than MARGIN."""
    oracle = exported.oracle()
    rows = []
    for prompt in prompts_of(name):
        ids = list(prompt)
        for _ in range(CASES[name]["new"]):
            second, best = np.sort(oracle.logits(ids)[-1])[-2:]
            if best - second < MARGIN:
                raise ValueError(
                    f"{name}: the two best logits differ by {best - second}. Choose other prompts."
                )
            ids = oracle.greedy(ids, 1)
        rows.append(ids[len(prompt) :])
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        exported = golden_model(Path(folder))
        tokens = {
            name: by_oracle(exported, name) if name in BY_ORACLE else generate(exported.folder, name)
            for name in CASES
        }
    made_on = f"{platform.machine()}; greedy without options: the NumPy oracle"
    text = json.dumps({"made_on": made_on, "tokens": tokens})
    GOLDEN.write_text(
        text.replace('"tokens": {', '"tokens": {\n').replace("]], ", "]],\n") + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
