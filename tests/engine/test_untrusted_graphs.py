"""Model folders whose graph lies, with right hashes: refused at load or by the operator, never read past an end."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import ModelFolderError
from tests.export.models import export_tiny

onnx = pytest.importorskip("onnx")

Change = Callable[[Any], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny, with an int8 KV cache, whose scales are constants of the graph."""
    root = tmp_path_factory.mktemp("untrusted-graphs")
    return export_tiny(root, dtype="int8", kv_cache_dtype="int8", verify=False).folder


def told(folder: Path, where: Path, change: Change) -> str:
    """What loading and generating say of a copy whose graph was changed."""
    copy = where / "copy"
    shutil.copytree(folder, copy)
    model = onnx.load(copy / "decoder.onnx", load_external_data=False)
    change(model)
    content = model.SerializeToString()
    (copy / "decoder.onnx").write_bytes(content)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["sabiyarn_edge"]["graph_hash"] = hashlib.sha256(content).hexdigest()
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with (
        pytest.raises(ModelFolderError) as refused,
        EdgeGenerator.from_pretrained(copy, num_threads=1) as generator,
    ):
        generator.generate([1, 2, 3], max_new_tokens=2)
    return str(refused.value)


def named(values: Any, name: str) -> Any:
    (found,) = [value for value in values if value.name == name]
    return found


def renamed(kind: str, old: str, new: str) -> Change:
    """An input or output under another name, in the graph's nodes too."""

    def change(model: Any) -> None:
        named(getattr(model.graph, kind), old).name = new
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]

    return change


def typed(name: str, element: int) -> Change:
    def change(model: Any) -> None:
        named(model.graph.input, name).type.tensor_type.elem_type = element

    return change


def shaped(kind: str, name: str, dims: list[int | str]) -> Change:
    def change(model: Any) -> None:
        value = named(getattr(model.graph, kind), name)
        element = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(name, element, dims))

    return change


def constant(name: str, values: np.ndarray) -> Change:
    """An initializer with other values."""

    def change(model: Any) -> None:
        tensor = named(model.graph.initializer, name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))

    return change


def without(kind: str, name: str) -> Change:
    def change(model: Any) -> None:
        values = getattr(model.graph, kind)
        values.remove(named(values, name))

    return change


def another_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("temperature", onnx.TensorProto.FLOAT, [1]))


def another_block_size(model: Any) -> None:
    named_block_size = [entry for entry in model.metadata_props if entry.key == "block_size"]
    named_block_size[0].value = "4096"


def attribute(op_type: str, name: str, value: int) -> Change:
    def change(model: Any) -> None:
        node = next(node for node in model.graph.node if node.op_type == op_type)
        next(entry for entry in node.attribute if entry.name == name).i = value

    return change


ONE, NONE = np.ones(1, np.float32), np.ones(0, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("input", "input_ids", "ids"), "the graph lacks the input input_ids"),
        (renamed("output", "logits", "scores"), "the graph lacks the output logits"),
        (without("output", "hidden_states"), "the graph lacks the output hidden_states"),
        (another_input, "the graph has the unknown input temperature"),
        (another_block_size, "in the graph"),
        (typed("segments", 1), "segments"),
        (typed("attention_mask", 10), "attention_mask"),
        (typed("past_key_values.0.key", 1), "past_key_values.0.key"),
        (shaped("input", "segments", ["segments", 4]), r"segments is tensor\(int64\) \[any, 5\] there"),
        (shaped("input", "window", [3]), r"window is tensor\(int64\) \[2\] there"),
        (shaped("input", "position_ids", ["rows", "tokens"]), "position_ids is"),
        (
            shaped("input", "past_key_values.0.value", ["rows", 4, "capacity", 9]),
            "past_key_values.0.value is",
        ),
        (shaped("output", "logits", ["n", 5]), "logits"),
        (shaped("output", "hidden_states", ["n"]), "hidden_states"),
        (constant("h.0.attn.key_scale", ONE), "key_scale has shape .*; it must be"),
        (constant("h.0.attn.value_scale", ONE), "value_scale has shape .*; it must be"),
        (constant("h.0.attn.key_scale", NONE), "key_scale has shape .*; it must be"),
        (constant("transformer.h.0.ln_1.weight", ONE), "norm_scale has shape|first_scale has shape"),
        (constant("transformer.h.0.ln_1.weight", NONE), "norm_scale has shape|first_scale has shape"),
        (constant("transformer.h.0.j.weight", NONE), r"second_scale has shape \[0\]; it must be"),
        (constant("transformer.h.0.j.bias", ONE), r"second_bias has shape \[1\]; it must be"),
        (constant("transformer.h.0.j.bias", NONE), r"second_bias has shape \[0\]; it must be"),
        (attribute("Linear", "N", 2**20), "the weights have .* bytes; .* take"),
        (attribute("Embedding", "K", 2**20), "the weights have .* bytes; .* take|cannot load"),
    ],
)
def test_a_graph_that_lies_is_refused_with_what_is_wrong(
    folder: Path, tmp_path: Path, change: Change, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    said = told(folder, tmp_path, change)
    assert re.search(message, said), said
    assert capfd.readouterr() == ("", "")  # nor does onnxruntime's log
