"""What it costs that products with 8-bit and 4-bit weights round their inputs to 8 bits, block by block.

One input that is far larger than its neighbours takes their bits: the scale of a block is its largest magnitude / 127.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..modeling import GPTJXForCausalLM
from ..modeling.tensor_files import first_ten
from .watched_inputs import watched_inputs
from .weight_format import Matrix, WeightFormat

__all__ = ["COST_TO_NOTE", "ActivationError", "activation_notes", "measure_activation_errors"]

COST_TO_NOTE = 0.02
"""Of what an output varies by. Without outliers rounding costs at most half of that: 0.006 to 0.010 in `nano`."""

HEAD, POSITIONS = "transformer.wte.weight", "transformer.wpe.weight"

SMALL_BLOCK = 32
"""The block size that a note offers."""


@dataclass(frozen=True, kw_only=True)
class ActivationError:
    """What rounding one matrix' inputs costs: the root of the mean square of the outputs' errors, as a fraction of what
    the outputs vary by from token to token. What is the same for all tokens does not count: it would hide the rest."""

    relative_error: float
    with_block_32: float
    """The same with blocks of 32 weights, whose inputs are rounded in blocks of 32 too."""


class _Sums:
    """Of the outputs of one matrix, and of their errors."""

    def __init__(self, weight: Tensor, block_sizes: Sequence[int]) -> None:
        self._weight = weight
        self._tokens, self._squares = 0, 0.0
        self._outputs = torch.zeros(len(weight), dtype=torch.float64)
        self._errors = dict.fromkeys(block_sizes, 0.0)

    def add(self, x: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1])
        outputs = rows @ self._weight.T
        self._tokens += len(rows)
        self._outputs += outputs.sum(dim=0)
        self._squares += float(outputs.square().sum(dtype=torch.float64))
        for size in self._errors:
            errors = (rounded(rows, size) - rows) @ self._weight.T
            self._errors[size] += float(errors.square().sum(dtype=torch.float64))

    def relative_error(self, block_size: int) -> float:
        """0 where nothing varies."""
        variation = self._squares - float(self._outputs.square().sum()) / max(self._tokens, 1)
        return math.sqrt(self._errors[block_size] / variation) if variation > 0 else 0.0


def rounded(x: Tensor, block_size: int) -> Tensor:
    """The values [rows, width] that products compute with: codes -127 ... 127 times a scale for each block."""
    width = x.shape[-1]
    blocks = torch.nn.functional.pad(x, (0, -width % block_size)).reshape(len(x), -1, block_size)
    scales = blocks.abs().amax(dim=-1, keepdim=True) / 127
    codes = (blocks / torch.where(scales > 0, scales, 1.0)).round()
    return (codes * scales).reshape(len(x), -1)[:, :width]


def measure_activation_errors(
    model: GPTJXForCausalLM,
    matrices: Sequence[Matrix],
    views: Mapping[str, Tensor],
    weights: WeightFormat,
    texts: Sequence[Tensor],
) -> dict[str, ActivationError]:
    """Run the checkpoint in float32 over texts.

    Args:
        matrices: all of the model; those without products (wpe) and those in floats are left out of the result.
        views: the memory of each in the model.
        texts: ids [rows, length].
    """
    sizes = {
        matrix.name: size
        for matrix in matrices
        if (size := weights.block_size(matrix)) is not None and matrix.name != POSITIONS
    }
    sums = {name: _Sums(views[name], (size, min(size, SMALL_BLOCK))) for name, size in sizes.items()}
    watchers = {name: found.add for name, found in sums.items()}
    if HEAD in watchers:
        watchers["lm_head.weight"] = watchers.pop(HEAD)  # the module that multiplies with it
    with torch.inference_mode(), watched_inputs(model, "", watchers):
        for ids in texts:
            model(ids)
    return {
        name: ActivationError(
            relative_error=sums[name].relative_error(size),
            with_block_32=sums[name].relative_error(min(size, SMALL_BLOCK)),
        )
        for name, size in sizes.items()
    }


def activation_notes(errors: Mapping[str, ActivationError]) -> list[str]:
    """What the user should know: matrices where rounding the inputs costs much."""
    costly = {name: error for name, error in errors.items() if error.relative_error > COST_TO_NOTE}
    if not costly:
        return []
    ranked = sorted(costly.items(), key=lambda pair: -pair[1].relative_error)
    listed = first_ten(
        [f"{name} ({error.relative_error:.1%}, {error.with_block_32:.1%})" for name, error in ranked]
    )
    return [
        f"the inputs of {len(costly)} matrices hold outliers: rounding them to 8 bits costs more than "
        f"{COST_TO_NOTE:.0%} of what the outputs vary by (as exported, with --block-size {SMALL_BLOCK}): "
        f"{', '.join(listed)}. "
        "--dtype float16 rounds no inputs."
    ]
