"""Rounds every matrix of 4 bits with GPTQ, block after block, on the inputs that it sees in calibration text.

Each block is rounded on what the blocks before it give once they are rounded, so that it makes up for their errors too.
wte stays out: it is the embedding as well as lm_head, and what is best for products is not what is best for a lookup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..modeling import GPTJXForCausalLM
from ..modeling.blocks import Attend
from .decoder_graph import Parameters
from .gptq import round_by_gptq
from .quantized_weights import QuantizedWeights

__all__ = ["calibrate"]

LINEAR = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def calibrate(
    model: GPTJXForCausalLM,
    parameters: Parameters,
    weights: QuantizedWeights,
    texts: Sequence[Tensor],
    *,
    progress: Callable[[int], object] = lambda n: None,
) -> None:
    """Round the linear layers of the blocks and give the result to `weights`. The model is as before afterwards.

    Args:
        texts: ids [rows, length], each from position 0 on.
        progress: told 1 after each matrix; 4 per block in all.
    """
    wte, wpe = (
        torch.from_numpy(weights.restored(parameters.matrix(f"transformer.{name}.weight")))
        for name in ("wte", "wpe")
    )
    with torch.inference_mode():
        hidden = [wte[ids] + wpe[: ids.shape[1]] for ids in texts]
        for i, block in enumerate(model.transformer.h):
            layers = {name: _module(block, name) for name in LINEAR}
            with _mean_products(layers) as hessian:
                for x in hidden:
                    block(x, Attend())
            originals = {}
            for name, layer in layers.items():
                matrix = parameters.matrix(f"transformer.h.{i}.{name}.weight")
                layout = weights.layout(matrix)
                if layout.bits < 8:
                    weights.put(matrix, round_by_gptq(matrix.load(), hessian(name), layout))
                originals[name] = layer.weight.data
                layer.weight.data = torch.from_numpy(weights.restored(matrix))
                progress(1)
            hidden = [block(x, Attend()) for x in hidden]
            for name, layer in layers.items():
                layer.weight.data = originals[name]


@contextmanager
def _mean_products(layers: dict[str, nn.Linear]) -> Iterator[Callable[[str], NDArray[np.float64]]]:
    """Gather x x^T of every input x that the layers see; gives a function from a layer's name to the mean."""
    sums = {name: torch.zeros(layer.in_features, layer.in_features) for name, layer in layers.items()}
    counts = dict.fromkeys(layers, 0)

    def gather(name: str, x: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1])
        sums[name].addmm_(rows.T, rows)
        counts[name] += len(rows)

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: gather(name, inputs[0]))
        for name, layer in layers.items()
    ]
    try:
        yield lambda name: (sums[name].double() / counts[name]).numpy()
    finally:
        for hook in hooks:
            hook.remove()


def _module(block: nn.Module, name: str) -> nn.Linear:
    layer = block.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer
