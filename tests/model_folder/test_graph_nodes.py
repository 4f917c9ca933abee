"""The reader of graphs, held to the onnx package."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from sabiyarn_edge.model_folder.graph_nodes import (
    WEIGHT_TYPES,
    GraphNode,
    nodes_per_layer,
    read_nodes,
    stored_matrices,
)
from tests.export.models import export_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"dtype": "int4", "rounding": "nearest", "keep_int8": ["last"], "verify": False}
    return export_tiny(tmp_path_factory.mktemp("nodes"), {"n_layer": 3}, **options).folder


def test_reads_what_onnx_wrote(folder: Path) -> None:
    expected = onnx.load(folder / "decoder.onnx", load_external_data=False).graph.node
    nodes = read_nodes((folder / "decoder.onnx").read_bytes())
    assert [(node.name, node.operator, list(node.inputs), list(node.outputs)) for node in nodes] == [
        (node.name, node.op_type, list(node.input), list(node.output)) for node in expected
    ]
    for node, other in zip(nodes, expected, strict=True):
        integers = {attribute.name: attribute.i for attribute in other.attribute}
        assert node.integers == integers


def test_nodes_per_layer(folder: Path) -> None:
    nodes = read_nodes((folder / "decoder.onnx").read_bytes())
    counts = nodes_per_layer(nodes)
    assert counts == [sum(node.name.startswith(f"h.{i}.") for node in nodes) for i in range(3)]
    assert counts[0] == counts[1] == counts[2] - 2  # the last layer picks the wanted positions
    assert nodes_per_layer([]) == []


def test_stored_matrices(folder: Path) -> None:
    found = stored_matrices(read_nodes((folder / "decoder.onnx").read_bytes()))
    names = [matrix.name for matrix in found]
    assert len(set(names)) == len(names) == 2 + 4 * 3
    assert {"wte", "wpe", "h.0.attn.c_attn", "h.2.mlp.c_proj"} <= set(names)
    for matrix in found:
        assert matrix.weight_type == ("int8" if matrix.name.startswith("h.2.") else "int4")
        assert matrix.block_size == (64 if matrix.name.endswith("mlp.c_proj") else 16)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_stored_matrices_of_floats(tmp_path: Path, dtype: str) -> None:
    folder = export_tiny(tmp_path, dtype=dtype, verify=False).folder
    found = stored_matrices(read_nodes((folder / "decoder.onnx").read_bytes()))
    assert {(matrix.weight_type, matrix.block_size) for matrix in found} == {(dtype, None)}


def test_weight_types_are_numbered_as_in_onnx() -> None:
    names = {"float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16", "int8": "INT8", "int4": "INT4"}
    expected = {name: onnx.TensorProto.DataType.Value(names[name]) for name in names}
    assert expected == WEIGHT_TYPES


def test_negative_numbers_and_nodes_without_attributes() -> None:
    node = onnx.helper.make_node("Split", ["x"], ["y"], name="h.10.split", axis=-1)
    plain = onnx.helper.make_node("Add", ["x", "y"], ["z"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node, plain], "graph", [], []))
    first, second = read_nodes(model.SerializeToString())
    assert (first.layer, first.integers) == (10, {"axis": -1})
    assert (second.layer, second.name, second.integers) == (None, "", {})


def test_what_is_no_model() -> None:
    with pytest.raises(ValueError, match="not an ONNX model"):
        read_nodes(b"\xff" * 20)


@pytest.mark.parametrize("layer", [2, 999_999_999])
def test_a_layer_beyond_the_number_of_nodes_is_refused(layer: int) -> None:
    """Nothing is counted for all the layers before it."""
    nodes = [GraphNode(f"h.{layer}.x", "Add", ("a", "b"), ("c",), {}), GraphNode("y", "Add", (), (), {})]
    with pytest.raises(ValueError, match=f"a node is named for layer {layer}, but there are 2 nodes"):
        nodes_per_layer(nodes)
