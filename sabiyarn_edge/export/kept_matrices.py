"""Chooses the matrices of an int4 export that have 8 bits: those whose 4 bits cost the most accuracy for their size.

Every matrix is rounded to 4 bits, and then each in turn to 8: what it wins is by how much that lowers the KL divergence
from the model in float32, on text. They are taken by falling win per byte while there is room: all together take at
most what 8.25 bits for each weight of the tables and of one block, and 4.5 bits for all others, would take. Wins nearly
add up, so that each is measured once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..modeling import GPTJXForCausalLM
from .block_plan import stored_name
from .block_quantization import BlockLayout, round_to_nearest
from .finite import check_computed
from .quantized_weights import QuantizedWeights
from .text_ids import evenly_spaced
from .tiles import tiled_shape
from .weight_format import Matrix

__all__ = ["KeptMatrix", "choose_kept", "count_candidates", "most_bytes"]

BITS_OF_TABLES, BITS_OF_OTHERS = 8.25, 4.5
"""Per weight: what all together may take, beside one block that counts as a table."""

ROW_TOKENS = 128
"""Of the pieces of text on which it is measured."""

MOST_TOKENS = 2048
MOST_LOGITS = 2**25
"""128 MiB of float32: that many logits of the model in float32 are kept at most."""


@dataclass(frozen=True, kw_only=True)
class KeptMatrix:
    """A matrix of an int4 export that has 8 bits."""

    name: str
    kl_won: float
    """By how much the mean KL divergence from the model in float32 falls, nats, beside all matrices in 4 bits."""
    extra_bytes: int
    """That it takes more than with 4 bits."""


def count_candidates(matrices: Sequence[Matrix]) -> int:
    """Tensors among which choose_kept() chooses: matrices, and banks of experts as a whole."""
    return len({stored_name(matrix.name) for matrix in matrices})


def choose_kept(
    model: GPTJXForCausalLM,
    matrices: Sequence[Matrix],
    views: Mapping[str, Tensor],
    weights: QuantizedWeights,
    texts: Sequence[Tensor],
    *,
    progress: Callable[[int], object] = lambda n: None,
) -> list[KeptMatrix]:
    """Measure what each matrix wins, and choose. The model is as before afterwards.

    Args:
        matrices: all of the model.
        views: the memory of each in the model.
        weights: gives all of them 4 bits.
        texts: ids [rows, length], each from position 0 on.
        progress: told 1 after each tensor that was measured.

    Raises:
        CheckpointError: the model gives NaN or infinite logits.
    """
    rows = [row[None, :ROW_TOKENS] for text in texts for row in text]
    tokens = min(MOST_TOKENS, max(MOST_LOGITS // model.config.vocab_size, 1))
    rows = evenly_spaced([row for row in rows if row.shape[1] > 1] or rows, tokens)
    tensors: dict[str, list[Matrix]] = {}
    for matrix in matrices:
        tensors.setdefault(stored_name(matrix.name), []).append(matrix)
    originals = {matrix.name: views[matrix.name].clone() for matrix in matrices}
    found = []
    with torch.inference_mode():
        expected = []
        for row in rows:
            logits = model(row).logits
            check_computed(logits, "logits for the calibration text")
            expected.append(logits.log_softmax(dim=-1))
        try:
            for matrix in matrices:
                _put(views, matrix, torch.from_numpy(weights.restored(matrix)))
            all_in_four = _divergence(model, rows, expected)
            for name, own in tensors.items():
                in_four_bits = {matrix.name: views[matrix.name].clone() for matrix in own}
                for matrix in own:
                    layout = BlockLayout(8, weights.layout(matrix).size)
                    values = originals[matrix.name][: matrix.shape[0]].contiguous().numpy()
                    _put(views, matrix, torch.from_numpy(round_to_nearest(values, layout).restored()))
                won = all_in_four - _divergence(model, rows, expected)
                extra = sum(_bytes(matrix, weights, 8) - _bytes(matrix, weights, 4) for matrix in own)
                found.append(KeptMatrix(name=name, kl_won=won, extra_bytes=extra))
                for matrix in own:
                    views[matrix.name].copy_(in_four_bits[matrix.name])
                progress(1)
        finally:
            for name, original in originals.items():
                views[name].copy_(original)
    in_four = sum(_bytes(matrix, weights, 4) for matrix in matrices)
    return _best(found, most_bytes(matrices) - in_four)


def most_bytes(matrices: Iterable[Matrix]) -> int:
    """What the matrices of a model take at most, where it is chosen which of them have 8 bits."""
    bits = 0.0
    for matrix in matrices:
        like_tables = matrix.name.startswith(("transformer.w", "transformer.h.0."))
        bits += matrix.shape[0] * matrix.shape[1] * (BITS_OF_TABLES if like_tables else BITS_OF_OTHERS)
    return int(bits / 8)


def _best(candidates: Sequence[KeptMatrix], room: int) -> list[KeptMatrix]:
    """Those that win most per byte and find room, the best first.

    One large matrix may win more than the small ones that take its room: each is tried as the first to be taken.
    """
    ranked = sorted(candidates, key=lambda found: -found.kl_won / found.extra_bytes)
    ranked = [candidate for candidate in ranked if candidate.kl_won > 0]
    best: list[KeptMatrix] = []
    for first in ranked:
        chosen, left = [], room
        for candidate in (first, *(other for other in ranked if other is not first)):
            if candidate.extra_bytes <= left:
                chosen.append(candidate)
                left -= candidate.extra_bytes
        if sum(found.kl_won for found in chosen) > sum(found.kl_won for found in best):
            best = chosen
    return sorted(best, key=ranked.index)


def _put(views: Mapping[str, Tensor], matrix: Matrix, values: Tensor) -> None:
    views[matrix.name][: matrix.shape[0]] = values


def _bytes(matrix: Matrix, weights: QuantizedWeights, bits: int) -> int:
    tiles, of_tile = tiled_shape(*matrix.shape, BlockLayout(bits, weights.layout(matrix).size))
    return tiles * of_tile


def _divergence(model: GPTJXForCausalLM, rows: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Mean KL divergence of the expected log-probabilities from the model's, nats."""
    total = tokens = 0.0
    for row, log_p in zip(rows, expected, strict=True):
        log_q = model(row).logits.log_softmax(dim=-1)
        total += float((log_p.exp() * (log_p - log_q)).sum(dtype=torch.float64))
        tokens += row.numel()
    return total / tokens
