"""One file for each kind of engine, with a class Engine that serve.py times.

    Engine(path, threads, positions)   loads; importing the file has imported what the engine needs
    facts()                            what it is and does: see Facts
    trial(length, steps, seed)         a Trial: the prompt random_prompt(vocab_size, length, seed), then greedy tokens
    beam_step_seconds(length, steps, seed)   a step of 5-beam search; absent where the engine has none
    rows(count, length, steps, seed)   a Trial of so many prompts side by side, each step a token of all of them;
                                       absent where the engine has none

In each step an engine computes the logits of all vocabulary entries for one position from its KV cache, and makes the
greedy choice. A trial begins with an empty KV cache and computes the complete prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sabiyarn_edge.bench.engine import random_prompt

__all__ = ["PACKAGES", "Facts", "random_prompts", "spaced", "weight_elements"]

PACKAGES = {
    "sabiyarn": ("sabiyarn_edge",),
    "llama_cpp": ("llama_cpp", "gguf"),
    "ctranslate2": ("ctranslate2",),
    "genai": ("onnxruntime_genai", "onnx"),
    "transformers": ("transformers", "torch"),
    "concatenation": ("sabiyarn_edge",),
}
"""Module -> what must be installed for it."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts that an engine reports."""

    weights: str
    """Weight format."""
    kv_cache_dtype: str
    threads: int
    vocab_size: int
    weight_bytes_per_step: int
    kv_bytes_per_position: int
    excluded: str
    """Differences of its work from the other engines'."""
    build: str = ""
    """Instruction sets that it was built for, in its own words; "": it does not say."""


def random_prompts(vocab_size: int, count: int, length: int, seed: int) -> list[list[int]]:
    """Different prompts of one length: every engine gets the same ones."""
    return [random_prompt(vocab_size, length, 1000 * seed + row) for row in range(count)]


def weight_elements(shape: dict[str, Any]) -> int:
    """Elements of the matrices that a step reads: those of the blocks, and the head's."""
    return 12 * shape["n_layer"] * shape["n_embd"] ** 2 + shape["vocab_size"] * shape["n_embd"]


def spaced(stamps: Sequence[float]) -> list[float]:
    """Times between stamps."""
    return [after - before for before, after in pairwise(stamps)]
