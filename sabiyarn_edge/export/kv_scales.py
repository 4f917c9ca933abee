"""Scales of an int8 KV cache: how large keys and values become on a text, channel by channel.

An int8 cache holds round(x / scale), between -128 and 127, and attention reads it times the scale again. The scales are
constants of the graph, so they must be known before the first token: the torch model is run over a text, and each
channel's scale is its largest absolute value there, with some room, divided by 127. What is larger later is clipped.

    key, value   float32 [1, n_heads, 1, head_dim] for each layer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch

from ..modeling import GPTJXForCausalLM
from .finite import check_computed
from .tensors import Array

__all__ = [
    "KvScales",
    "calibration_pieces",
    "measure_scales",
]

ROOM = 1.25
"""How much larger than on the calibration text a channel may be before it is clipped. It costs a third of a bit."""

PIECE_TOKENS = 512
MAX_PIECES = 32
"""16,384 tokens in all: half a minute for SabiYarn-125M on two cores."""


@dataclass(frozen=True)
class KvScales:
    """Of one layer."""

    key: Array
    value: Array


def calibration_pieces(tokens: Sequence[int], block_size: int) -> list[tuple[int, list[int]]]:
    """What to run: (first position, tokens) of pieces that reach all over the text and all over the positions.

    Keys and values depend on the position too, so a short text is read again at later positions.
    """
    length = min(PIECE_TOKENS, block_size, len(tokens))
    texts = [list(tokens[start : start + length]) for start in range(0, len(tokens), length)]
    count = min(max(len(texts), ceil(block_size / length)), MAX_PIECES)
    if len(texts) > count:  # evenly spaced ones: a file may go through one language after the other
        texts = [texts[index * len(texts) // count] for index in range(count)]
    last = block_size - length
    return [(last * index // max(count - 1, 1), texts[index % len(texts)]) for index in range(count)]


def measure_scales(
    model: GPTJXForCausalLM,
    pieces: Sequence[tuple[int, Sequence[int]]],
    progress: Callable[[int], object] = lambda n: None,
) -> list[KvScales]:
    """Run the torch model over the pieces, uncached, and give each layer's scales.

    Args:
        progress: told the number of tokens after each piece.

    Raises:
        CheckpointError: the model gives NaN or infinite keys or values.
    """
    config = model.config
    largest = torch.zeros(config.n_layer, 2, config.n_embd)

    def watch(layer: int) -> Callable[..., None]:
        def note(_module: Any, _inputs: Any, qkv: torch.Tensor) -> None:
            sides = qkv[..., config.n_embd :].reshape(-1, 2, config.n_embd).abs().amax(dim=0)
            largest[layer] = torch.maximum(largest[layer], sides)

        return note

    with ExitStack() as hooks, torch.inference_mode():
        for layer, block in enumerate(model.transformer.h):
            attention: Any = block.attn
            handle = attention.c_attn.register_forward_hook(watch(layer))
            hooks.callback(handle.remove)
        for first, tokens in pieces:
            positions = torch.arange(first, first + len(tokens))
            model(torch.tensor([tokens]), position_ids=positions, logits_to_keep=1)
            progress(len(tokens))
    check_computed(largest, "keys or values for the calibration text")
    shape = (config.n_layer, 2, 1, config.n_heads, 1, config.head_dim)
    # A channel that is always 0 may have any scale but 0.
    scales = np.maximum(largest.numpy() * np.float32(ROOM / 127), np.finfo(np.float32).tiny * 2**24)
    return [KvScales(key, value) for key, value in scales.reshape(shape).astype(np.float32)]
