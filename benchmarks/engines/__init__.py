"""One file for each kind of engine, with a class Engine that serve.py times.

    Engine(path, threads, positions)   loads; importing the file has imported what the engine needs
    facts()                            what it is and does: see Facts
    turn(length, steps, seed)          a Turn: the prompt random_prompt(vocab_size, length, seed), then greedy tokens
    beam_step_seconds(length, steps, seed)   a step of 5-beam search; absent where the engine has none

Each engine computes the logits of all vocabulary entries for one position per step, from a cache of keys and values of
all tokens before it, and the greedy choice from them; a turn's prompt is computed whole, from an empty cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

__all__ = ["PACKAGES", "Facts", "spaced", "weight_elements"]

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
    """What an engine says of itself."""

    weights: str
    """How weights are stored."""
    kv_cache_dtype: str
    threads: int
    vocab_size: int
    weight_bytes_per_step: int
    kv_bytes_per_position: int
    excluded: str
    """How its work differs from the others'."""


def weight_elements(shape: dict[str, Any]) -> int:
    """Elements of the matrices that a step reads: those of the blocks, and the head's."""
    return 12 * shape["n_layer"] * shape["n_embd"] ** 2 + shape["vocab_size"] * shape["n_embd"]


def spaced(stamps: Sequence[float]) -> list[float]:
    """Times between stamps."""
    return [after - before for before, after in pairwise(stamps)]
