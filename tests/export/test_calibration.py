"""GPTQ over a whole model: each matrix against the inputs that a plain forward gives it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from sabiyarn_edge.export.block_plan import BlockPlan
from sabiyarn_edge.export.calibration import calibrate
from sabiyarn_edge.export.gptq import round_by_gptq
from sabiyarn_edge.export.quantized_weights import QuantizedWeights
from sabiyarn_edge.export.source_checkpoint import Checkpoint
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint

LINEAR = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
SHAPE = {"n_embd": 32, "n_heads": 2, "n_layer": 3, "vocab_size": 97, "block_size": 40}


def calibrated(tmp_path: Path, texts: list[torch.Tensor]) -> tuple[Checkpoint, QuantizedWeights, list[int]]:
    checkpoint = Checkpoint.load(make_tiny_checkpoint(tmp_path / "checkpoint", **SHAPE), None)
    weights = QuantizedWeights(
        BlockPlan("int4", 4, keep_int8=("lm_head", "h.1")), checkpoint.config, "search"
    )
    steps: list[int] = []
    calibrate(
        checkpoint.model, checkpoint.matrices(), checkpoint.views(), weights, texts, progress=steps.append
    )
    return checkpoint, weights, steps


def inputs_of(model: nn.Module, layer: str, texts: list[torch.Tensor]) -> np.ndarray:
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(layer).register_forward_pre_hook(
        lambda _, args: seen.append(args[0].reshape(-1, args[0].shape[-1]))
    )
    with torch.inference_mode():
        for ids in texts:
            model(ids)
    hook.remove()
    return torch.cat(seen).double().numpy()


def test_each_block_is_rounded_on_what_rounded_blocks_give(tmp_path: Path) -> None:
    """Round a copy of the model block by block, each from a full forward of the copy as it is by then."""
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(97, (3, 40), generator=generator), torch.randint(97, (1, 17), generator=generator)]
    checkpoint, weights, steps = calibrated(tmp_path, texts)
    assert steps == [1] * (4 * 3)
    matrices = {matrix.name: matrix for matrix in checkpoint.matrices()}
    copy = Checkpoint.load(tmp_path / "checkpoint", None).model
    copied = copy.state_dict()
    for name in ("transformer.wte.weight", "transformer.wpe.weight"):
        copied[name].copy_(torch.from_numpy(weights.restored(matrices[name])))
    for i in range(3):
        layers = [f"transformer.h.{i}.{name}" for name in LINEAR]
        inputs = {layer: inputs_of(copy, layer, texts) for layer in layers}
        for layer in layers:
            matrix = matrices[f"{layer}.weight"]
            restored, layout = weights.restored(matrix), weights.layout(matrix)
            assert layout.bits == (8 if i == 1 else 4)
            if i != 1:
                x = inputs[layer]
                expected = round_by_gptq(matrix.load(), x.T @ x / len(x), layout).restored()
                # The mean of x x^T was added up in float32: a few weights on a border fall on its other side.
                assert np.isclose(restored, expected, atol=1e-6).mean() > 0.98
            copied[f"{layer}.weight"].copy_(torch.from_numpy(restored))


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    checkpoint, _, _ = calibrated(tmp_path, [torch.arange(40)[None]])
    fresh = Checkpoint.load(tmp_path / "checkpoint", None).model.state_dict()
    for name, values in checkpoint.model.state_dict().items():
        assert torch.equal(values, fresh[name]), name
