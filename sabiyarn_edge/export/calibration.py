"""Rounds every matrix of 4 bits with GPTQ, block after block, on the inputs that it sees in calibration text.

Each block is rounded on what the blocks before it give once they are rounded, so that it makes up for their errors too.
The matrices of an expert see the tokens that are routed to it; where these are too few, they are rounded to nearest.
wte stays out: it is the embedding as well as lm_head, and what is best for products is not what is best for a lookup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modeling import GPTJXForCausalLM
from ..modeling.blocks import Attend
from .block_plan import stored_name
from .finite import check_computed
from .gptq import round_by_gptq
from .quantized_weights import QuantizedWeights
from .scale_search import round_to_nearest_entries
from .watched_inputs import watched_inputs
from .weight_format import Matrix

__all__ = ["LEAST_TOKENS", "calibrate"]

LEAST_TOKENS = 2.5
"""Times an expert's width: with fewer tokens, GPTQ fits the weights to them and not to others. Measured on the bundled
model's mlp.c_proj: error of products with other tokens beside that of rounding to nearest is 1.60, 1.09, 0.81, 0.63 and
0.58 times as large with 1, 2, 3, 6 and 12 times as many tokens as the matrix is wide."""


@dataclass
class _Inputs:
    """What is known of the inputs x of one matrix."""

    sum: Tensor
    """[width, width], of x x^T"""
    tokens: int = 0

    def add(self, x: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1])
        self.sum.addmm_(rows.T, rows)
        self.tokens += len(rows)

    def mean(self) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (self.sum.double() / self.tokens).numpy()
        return found


def calibrate(
    model: GPTJXForCausalLM,
    matrices: Sequence[Matrix],
    views: Mapping[str, Tensor],
    weights: QuantizedWeights,
    texts: Sequence[Tensor],
    *,
    progress: Callable[[int], object] = lambda n: None,
) -> dict[str, int]:
    """Round the matrices of the blocks and give the result to `weights`. The model is as before afterwards.

    Args:
        matrices: all of the model.
        views: the memory of each in the model.
        texts: ids [rows, length], each from position 0 on.
        progress: told 1 after each matrix of a block.

    Returns:
        Matrices that saw too few tokens and were rounded to nearest, and how many they saw.

    Raises:
        CheckpointError: inputs of a matrix are NaN, infinite, or so large that their squares are.
    """
    too_few: dict[str, int] = {}
    by_name = {matrix.name: matrix for matrix in matrices}
    wte, wpe = (
        torch.from_numpy(weights.restored(by_name[f"transformer.{name}.weight"])) for name in ("wte", "wpe")
    )
    with torch.inference_mode():
        hidden = [wte[ids] + wpe[: ids.shape[1]] for ids in texts]
        for i, block in enumerate(model.transformer.h):
            own = [matrix for matrix in matrices if matrix.name.startswith(f"transformer.h.{i}.")]
            inputs = {matrix.name: _Inputs(torch.zeros(2 * matrix.shape[1:])) for matrix in own}
            watchers = {name: seen.add for name, seen in inputs.items()}
            with watched_inputs(block, f"transformer.h.{i}.", watchers):
                for x in hidden:
                    block(x, Attend())
            for name, seen in inputs.items():
                check_computed(seen.sum, f"sums of products of the inputs of {name} for the calibration text")
            originals = {matrix.name: views[matrix.name].clone() for matrix in own}
            for matrix in own:
                seen, layout = inputs.pop(matrix.name), weights.layout(matrix)
                of_expert = stored_name(matrix.name) != matrix.name
                if layout.bits < 8 and of_expert and seen.tokens < LEAST_TOKENS * matrix.shape[1]:
                    too_few[matrix.name] = seen.tokens
                    weights.put(matrix, round_to_nearest_entries(matrix.load(), layout))
                elif layout.bits < 8:
                    weights.put(matrix, round_by_gptq(matrix.load(), seen.mean(), layout))
                views[matrix.name].copy_(torch.from_numpy(weights.restored(matrix)))
                progress(1)
            hidden = [block(x, Attend()) for x in hidden]
            for name, values in originals.items():
                views[name].copy_(values)
    return too_few
