"""The reader of external tensors, held to the onnx package."""

from __future__ import annotations

import onnx
import pytest

from sabiyarn_edge.model_folder.external_tensors import read_external_tensors, replace_external_tensors


@pytest.fixture
def model() -> onnx.ModelProto:
    tensors = [onnx.helper.make_tensor("inline", onnx.TensorProto.FLOAT, [2], [1.0, -2.5])]
    for name in ("one", "déux"):
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.UINT8, dims=[300, 70_000])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": "weights.bin", "offset": "65536", "length": "21000000"}.items():
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
    node = onnx.helper.make_node("MatMul", ["x", "one"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", [], [], tensors)
    made = onnx.helper.make_model(graph, producer_name="test")
    made.metadata_props.add(key="weights_hash", value="ab" * 32)
    return made


def test_reads_what_onnx_wrote(model: onnx.ModelProto) -> None:
    entries = {"location": "weights.bin", "offset": "65536", "length": "21000000"}
    assert read_external_tensors(model.SerializeToString()) == {"one": entries, "déux": entries}


def test_replaces_the_entries_and_nothing_else(model: onnx.ModelProto) -> None:
    def change(name: str, entries: dict[str, str]) -> dict[str, str]:
        return {**entries, "offset": "1" * 40, "name": name}

    changed = onnx.load_from_string(replace_external_tensors(model.SerializeToString(), change))
    for tensor in (*changed.graph.initializer, *model.graph.initializer):
        if tensor.external_data:
            name = tensor.name if tensor in list(changed.graph.initializer) else None
            entries = {pair.key: pair.value for pair in tensor.external_data}
            assert entries.get("name") == name
            del tensor.external_data[:]
    assert changed == model


@pytest.mark.parametrize("content", [b"\xff", b"\x0f", b"\x3a\x7f\x01", b"\x3a\x80"], ids=repr)
def test_refuses_what_is_no_model(content: bytes) -> None:
    with pytest.raises(ValueError, match="not an ONNX model"):
        read_external_tensors(content)
