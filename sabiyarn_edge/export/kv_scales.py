"""Scales of an int8 KV cache: how large keys and values become on a text, channel by channel.

An int8 cache holds round(x / scale), between -128 and 127, and attention reads it times the scale again. The scales are
constants of the graph, so they must be known before the first token: the torch model is run over a text, and each
channel's scale is its largest absolute value there, with some room, divided by 127. What is larger later is clipped.

    key, value   float32 [1, n_heads, 1, head_dim] for each layer, as GroupQueryAttention takes them ("PER_CHANNEL")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import CheckpointError, InvalidInputError
from ..modeling import GPTJXForCausalLM
from ..tokenizer import TOKENIZER_FILE, Tokenizer
from .tensors import Array

__all__ = [
    "OWN_TEXT",
    "OWN_TEXTS",
    "Calibration",
    "KvScales",
    "calibration_pieces",
    "measure_scales",
    "own_length",
    "read_calibration",
    "write_text",
]

ROOM = 1.25
"""How much larger than on the calibration text a channel may be before it is clipped. It costs a third of a bit."""

PIECE_TOKENS = 512
MAX_PIECES = 32
"""16,384 tokens in all: half a minute for SabiYarn-125M on two cores."""

OWN_TEXTS = 8
OWN_TOKENS = 256
"""Texts that the model writes when none are given, and the length of each in tokens."""


OWN_TEXT = "the model's own text"
"""What the report says then."""


@dataclass(frozen=True)
class KvScales:
    """Of one layer."""

    key: Array
    value: Array


@dataclass(frozen=True)
class Calibration:
    """Scales, and where they come from. Without arguments: of a cache that needs none."""

    scales: Sequence[KvScales] = ()
    text: str | None = None
    tokens: int = 0


def read_calibration(path: str | Path, checkpoint: Path) -> list[int]:
    """The tokens of a UTF-8 text file, with the checkpoint's tokenizer.

    Raises:
        InvalidInputError: the file cannot be read or is empty.
        CheckpointError: the checkpoint has no tokenizer.json.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the calibration text {path}: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the calibration text {path} is not UTF-8 ({error}).") from error
    if not (checkpoint / TOKENIZER_FILE).is_file():
        raise CheckpointError(
            f"{checkpoint} has no {TOKENIZER_FILE}, so the calibration text cannot be split into tokens. Leave it out: "
            "scales then come from a text that the model writes itself."
        )
    tokens = Tokenizer.from_file(checkpoint / TOKENIZER_FILE).encode(text)
    if not tokens:
        raise InvalidInputError(
            f"the calibration text {path} is empty. Give some thousand words like those that the model will read."
        )
    return tokens


def write_text(
    model: GPTJXForCausalLM, block_size: int, *, seed: int = 0, progress: Callable[[int], object]
) -> list[int]:
    """Tokens that the model writes itself: OWN_TEXTS samples at temperature 1, each from a random first token.

    They come from the distribution that the model has learnt, which random tokens do not.

    Args:
        progress: told the number of tokens after each step; OWN_TEXTS * the length of a text in all.
    """
    generator = torch.Generator().manual_seed(seed)
    vocab_size, rows = model.config.vocab_size, min(OWN_TEXTS, model.config.max_batch_size)
    new = torch.randint(vocab_size, (rows, 1), generator=generator)
    written = [new]
    with torch.inference_mode():
        model.clear_kv_cache()
        for _ in range(own_length(block_size) - 1):
            logits = model(new, use_cache=True, logits_to_keep=1).logits[:, -1]
            new = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
            written.append(new)
            progress(rows)
        model.free_kv_cache()
    return [int(token) for token in torch.cat(written, dim=1).flatten()]


def own_length(block_size: int) -> int:
    """Tokens of a text that the model writes."""
    return min(OWN_TOKENS, block_size)


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
    shape = (config.n_layer, 2, 1, config.n_heads, 1, config.head_dim)
    # A channel that is always 0 may have any scale but 0.
    scales = np.maximum(largest.numpy() * np.float32(ROOM / 127), np.finfo(np.float32).tiny * 2**24)
    return [KvScales(key, value) for key, value in scales.reshape(shape).astype(np.float32)]
