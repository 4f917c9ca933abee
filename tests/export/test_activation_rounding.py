"""What rounding a matrix' inputs costs, against NumPy on the inputs that hooks see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sabiyarn_edge.export import ExportReport, export_model
from sabiyarn_edge.export.activation_rounding import measure_activation_errors, rounded
from sabiyarn_edge.export.source_checkpoint import Checkpoint
from sabiyarn_edge.export.weight_formats import WeightOptions, make_weight_format
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.export.test_calibration import inputs_of

SHAPE: dict[str, Any] = {"n_embd": 128, "n_heads": 2, "n_layer": 2, "vocab_size": 97, "block_size": 40}
HIT = "transformer.h.1.mlp.c_fc"


def numpy_rounded(x: np.ndarray, size: int) -> np.ndarray:
    found = np.zeros_like(x)
    for row, values in enumerate(x):
        for start in range(0, len(values), size):
            block = values[start : start + size]
            if scale := np.abs(block).max() / 127:
                found[row, start : start + size] = np.round(block / scale) * scale
    return found


def numpy_error(x: np.ndarray, weight: np.ndarray, size: int) -> float:
    outputs, rounded_outputs = x @ weight.T, numpy_rounded(x, size) @ weight.T
    variation = np.square(outputs - outputs.mean(axis=0)).sum()
    return float(np.sqrt(np.square(rounded_outputs - outputs).sum() / variation))


def checkpoint(folder: Path, *, outlier: bool, **more: Any) -> Path:
    """One whose second MLP sees 1000 as its fifth input, whatever the token."""
    make_tiny_checkpoint(folder, **{**SHAPE, "bias": True, **more})
    if outlier:
        file = folder / "model.safetensors"
        tensors = load_file(file)
        tensors["transformer.h.1.ln_2.weight"][5] = 0
        tensors["transformer.h.1.ln_2.bias"][5] = 1000
        save_file(tensors, file)
    return folder


@pytest.mark.parametrize(("width", "size"), [(128, 128), (128, 32), (80, 32)])
def test_rounding(width: int, size: int) -> None:
    x = np.random.default_rng(0).standard_normal((5, width)).astype(np.float32)
    x[1, 3], x[2] = 1000, 0
    # float32: a step of the scale, times a code of up to 127
    np.testing.assert_allclose(rounded(torch.from_numpy(x), size).numpy(), numpy_rounded(x, size), rtol=1e-5)


@pytest.mark.parametrize("outlier", [False, True])
def test_errors_of_a_dense_model(tmp_path: Path, outlier: bool) -> None:
    source = Checkpoint.load(checkpoint(tmp_path / "checkpoint", outlier=outlier), None)
    texts = [torch.randint(97, (3, 40), generator=torch.Generator().manual_seed(0)), torch.arange(17)[None]]
    weights = make_weight_format(WeightOptions(dtype="int8"), source.config)
    found = measure_activation_errors(source.model, source.matrices(), source.views(), weights, texts)
    layers = {name.removesuffix(".weight"): name for name in found}
    assert "transformer.wpe" not in layers
    assert len(layers) == 4 * 2 + 1
    for layer, name in layers.items():
        module = "lm_head" if layer == "transformer.wte" else layer
        x = inputs_of(source.model, module, texts)
        weight = source.views()[name].double().numpy()
        expected = [numpy_error(x, weight, size) for size in (128, 32)]
        # codes of values half way between two may fall to either side in float32
        assert [found[name].relative_error, found[name].with_block_32] == pytest.approx(expected, rel=0.02)
    # 127 of 128 inputs share a block with 1000, so their codes are 0 and all that varies is lost; with blocks of 32 a
    # quarter of it is, in squares. The shares are those of 128 random weights: give or take an eighth.
    if outlier:
        hit = found[f"{HIT}.weight"]
        assert (hit.relative_error, hit.with_block_32) == pytest.approx((1.0, 0.5), abs=0.15)


def test_experts_count_their_own_tokens(tmp_path: Path) -> None:
    routed = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 2, "bias": False}
    source = Checkpoint.load(checkpoint(tmp_path / "checkpoint", outlier=False, **routed), None)
    weights = make_weight_format(WeightOptions(dtype="int8"), source.config)
    texts = [torch.randint(97, (4, 40), generator=torch.Generator().manual_seed(0))]
    seen: dict[str, list[torch.Tensor]] = {}
    found = measure_activation_errors(source.model, source.matrices(), source.views(), weights, texts)
    for i, block in enumerate(source.model.transformer.h):
        block.mlp.watch = lambda bank, expert, x, i=i: seen.setdefault(
            f"transformer.h.{i}.mlp.{bank}.{expert}", []
        ).append(x.reshape(-1, x.shape[-1]))
    with torch.inference_mode():
        source.model(texts[0])
    assert len(seen) == 2 * 3 * 2
    for name, inputs in seen.items():
        x, weight = torch.cat(inputs).double().numpy(), source.views()[name].double().numpy()
        assert found[name].relative_error == pytest.approx(numpy_error(x, weight, 128), rel=0.02)


def exported(tmp_path: Path, *, outlier: bool, **options: Any) -> ExportReport:
    source = checkpoint(tmp_path / "checkpoint", outlier=outlier)
    return export_model(source, tmp_path / "model", progress=False, **options)


def outlier_notes(report: ExportReport) -> list[str]:
    return [note for note in report.notes if "outliers" in note]


def test_the_export_notes_it(tmp_path: Path) -> None:
    report = exported(tmp_path, outlier=True)
    [note] = outlier_notes(report)
    assert f"{HIT}.weight (" in note
    assert "--block-size 32" in note
    assert report.activations[f"{HIT}.weight"].relative_error > 0.5


@pytest.mark.parametrize(("outlier", "dtype"), [(False, "int8"), (True, "float16")])
def test_nothing_is_noted_where_nothing_is_lost(tmp_path: Path, outlier: bool, dtype: str) -> None:
    report = exported(tmp_path, outlier=outlier, dtype=dtype)
    assert outlier_notes(report) == []
    assert bool(report.activations) == (dtype == "int8")
