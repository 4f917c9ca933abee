"""The oracle of overflow="slide": tokens fed one by one, and an uncached torch forward for every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sabiyarn_edge._core import DecodeOptions, DecodeState, derived_seed
from sabiyarn_edge.modeling import GPTJXForCausalLM


def feed(
    tokens: Sequence[int], positions: int, keep: int, window: int | None = None
) -> tuple[list[int], bool]:
    """What is seen at the last of `tokens`, and whether that one made the others slide."""
    seen: list[int] = []
    slid = False
    for token in tokens:
        slid = len(seen) == positions
        if slid:
            rest = seen[keep:]
            rest = rest[len(rest) // 2 :]  # the oldest half goes
            room = (window or positions) - keep
            seen = seen[:keep] + rest[max(len(rest) - room, 0) :]
        seen.append(token)
    return seen, slid


def windowed_mask(length: int, window: int, sinks: int) -> np.ndarray:
    """[length, length] bool: each token sees the sinks and, of the others, the newest window - sinks with
    itself."""
    query, key = np.arange(length)[:, None], np.arange(length)[None]
    return (key <= query) & ((key < sinks) | (key > query - (window - sinks)))


def generate_sliding(
    model: GPTJXForCausalLM,
    prompts: list[list[int]],
    *,
    keep: int = 0,
    window: int | None = None,
    sinks: int = 0,
    **options: Any,
) -> list[list[int]]:
    """Sequences that the core chooses from logits of torch, each row of each step computed from nothing."""
    positions, vocab_size = model.config.block_size, model.config.vocab_size
    returns = options.get("num_return_sequences", 1)
    if "seeds" in options:
        options["seeds"] = [derived_seed(seed, i) for seed in options["seeds"] for i in range(returns)]
    state = DecodeState(DecodeOptions(**options), vocab_size, prompts)
    while not state.finished:
        logits = np.empty((state.num_rows, vocab_size), np.float32)
        for row in range(state.num_rows):
            seen, _ = feed(state.history_of(row), positions, keep, window)
            mask = None
            if window is not None:
                mask = torch.from_numpy(windowed_mask(len(seen), window, sinks))
            with torch.no_grad():
                logits[row] = model(torch.tensor([seen]), attn_mask=mask).logits[0, -1].numpy()
        state.advance(logits)
    return state.sequences()
