"""What the exported graph must reproduce: tokens and logits of the torch model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..modeling import GPTJXForCausalLM
from .finite import check_computed

__all__ = ["Reference", "make_reference", "split_positions"]

PROMPT_TOKENS = 96
GENERATED_TOKENS = 64
MIN_PROMPT_TOKENS = 16


@dataclass(frozen=True)
class Reference:
    """A prompt of random tokens, the torch model's greedy continuation, and its logits at every position."""

    tokens: NDArray[np.int64]
    """[prompt_length + generated]"""
    prompt_length: int
    logits: NDArray[np.float32]
    """[prompt_length + generated, vocab_size], of one uncached forward over all tokens."""


def split_positions(block_size: int) -> tuple[int, int]:
    """Lengths of prompt and continuation, in tokens: (96, 64) where block_size has room for them.

    A small block_size shortens the prompt to 16 (or to a quarter of it) before the continuation.
    """
    shortest = max(1, min(MIN_PROMPT_TOKENS, block_size // 4))
    generated = min(GENERATED_TOKENS, block_size - shortest)
    return min(PROMPT_TOKENS, block_size - generated), generated


def make_reference(
    model: GPTJXForCausalLM,
    block_size: int,
    *,
    seed: int = 0,
    progress: Callable[[int], object] = lambda n: None,
) -> Reference:
    """Run the torch model.

    The continuation is found with the model's KV cache, which is quick. The logits, which everything is
    compared with, come from one full forward without it.

    Args:
        block_size: positions that the export will have, at most the model's own.
        progress: told the number of tokens after each step.

    Raises:
        CheckpointError: the model gives NaN or infinite logits.
    """
    prompt_length, generated = split_positions(block_size)
    rng = np.random.default_rng(seed)
    tokens = torch.from_numpy(rng.integers(model.config.vocab_size, size=(1, prompt_length)))
    with torch.inference_mode():
        model.clear_kv_cache()
        new = tokens
        for _ in range(generated):
            new = model(new, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(dim=-1, keepdim=True)
            tokens = torch.cat([tokens, new], dim=1)
            progress(1)
        model.free_kv_cache()
        logits = model(tokens).logits[0]
        check_computed(logits, "logits for random tokens")
        progress(1)
    return Reference(tokens[0].numpy(), prompt_length, logits.numpy())
