"""int8: the products against the values that are stored, and the distance from float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from sabiyarn_edge.errors import ExportError
from sabiyarn_edge.export import export_model
from sabiyarn_edge.weights_file import WeightsHeader
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.export.models import SHAPES, Exported, FeedingLoop, export_tiny

TOKENS = np.random.default_rng(5).integers(97, size=(1, 40))


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("int8")
    return export_tiny(folder, request.param, dtype="int8", kv_cache_dtype="float32")


def graph(exported: Exported) -> onnx.ModelProto:
    return onnx.load(exported.folder / "decoder.onnx", load_external_data=False)


def test_exact_but_for_the_activations(exported: Exported) -> None:
    """With float32 activations in the products, what is left is float32 rounding: every code, scale and zero
    point is where MatMulNBits and GatherBlockQuantized look for it."""
    model = graph(exported)
    original = (exported.folder / "decoder.onnx").read_bytes()
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    onnx.save(model, exported.folder / "decoder.onnx")
    try:
        logits = FeedingLoop(exported, rows=1, capacity=64).feed(TOKENS)[0]
    finally:
        (exported.folder / "decoder.onnx").write_bytes(original)
    expected = exported.oracle().logits(TOKENS[0])
    assert np.abs(logits - expected).max() < 1e-5 * expected.std()


def test_every_product_is_of_blocks(exported: Exported) -> None:
    operators = [node.op_type for node in graph(exported).graph.node]
    assert operators.count("MatMulNBits") == 4 * exported.shape["n_layer"] + 1
    assert operators.count("GatherBlockQuantized") == 2
    assert not {"MatMul", "FusedMatMul", "DequantizeLinear"} & set(operators)


def test_wte_stands_once(exported: Exported) -> None:
    nodes = graph(exported).graph.node
    [lookup] = [node for node in nodes if node.name == "wte"]
    [head] = [node for node in nodes if node.name == "logits"]
    assert list(lookup.input[2:4]) == list(head.input[2:4])  # scales and zero points
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in graph(exported).graph.initializer
    }
    if places[head.input[1]]:  # large enough for weights.bin
        assert places[lookup.input[0]] == places[head.input[1]]
        assert list(WeightsHeader.read(exported.folder / "weights.bin").tensors).count(head.input[1]) == 1


def test_the_report_says_how_far_from_float32(tmp_path: Path) -> None:
    shape = {"n_layer": 4, "n_embd": 128, "n_heads": 4, "vocab_size": 1009, "block_size": 256}
    int8 = export_tiny(tmp_path / "int8", shape, dtype="int8").report
    float32 = export_tiny(tmp_path / "float32", shape).report
    assert int8.verification is not None
    assert float32.verification is not None
    assert 0 <= float32.verification.mean_kl_divergence < 1e-6
    assert float32.verification.mean_kl_divergence < int8.verification.mean_kl_divergence < 5e-3
    assert float32.verification.top1_agreement >= int8.verification.top1_agreement > 0.9
    assert int8.sizes_mib["weights.bin"] < 0.3 * float32.sizes_mib["weights.bin"]


def test_widths_without_a_block_size(tmp_path: Path) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint", n_embd=24, n_heads=3)
    with pytest.raises(ExportError, match="n_embd is 24, but int8 stores weights in blocks of 16 or more"):
        export_model(source, tmp_path / "model", dtype="int8", progress=False)
    assert not (tmp_path / "model").exists()
