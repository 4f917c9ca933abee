"""Writes a built graph as an .onnx file whose large tensors stand in weights.bin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from onnx import ModelProto, TensorProto, checker, helper

from .. import __version__
from ..model_folder.weights_file import StoredTensor
from .graph_builder import GraphBuilder, onnx_type
from .tensors import Tensor

__all__ = ["make_model", "write_onnx"]

OPSET = 20
"""Of the standard operators: the first with Gelu."""
IR_VERSION = 9
"""The file format that came with this opset; onnxruntime refuses files newer than itself."""


def make_model(
    graph: GraphBuilder,
    name: str,
    weights_file: str,
    places: Mapping[str, StoredTensor],
    metadata: Mapping[str, str],
    *,
    opset: int = OPSET,
    ir_version: int = IR_VERSION,
) -> ModelProto:
    """Make the model; tensors named in `places` are referred to there, the others are stored in it.

    Args:
        weights_file: path of the weights file, relative to the .onnx file.
        metadata: becomes metadata_props, which a session shows as custom_metadata_map.
        opset, ir_version: of the standard operators, and the file format that came with it.
    """
    initializers = [_initializer(tensor, weights_file, places) for tensor in graph.tensors.values()]
    proto = helper.make_graph(graph.nodes, name, graph.inputs, graph.outputs, initializers)
    opsets = [helper.make_opsetid("", opset)]
    opsets += [
        helper.make_opsetid(domain, 1) for domain in sorted({node.domain for node in graph.nodes} - {""})
    ]
    model = helper.make_model(
        proto,
        producer_name="sabiyarn_edge",
        producer_version=__version__,
        opset_imports=opsets,
        ir_version=ir_version,
    )
    helper.set_model_props(model, dict(metadata))
    return model


def write_onnx(model: ModelProto, path: Path) -> None:
    """Write the file, check it (the weights file must be in place), and bring it to the disk."""
    with path.open("wb") as file:
        file.write(model.SerializeToString(deterministic=True))
        file.flush()
        os.fsync(file.fileno())
    checker.check_model(str(path))


def _initializer(tensor: Tensor, weights_file: str, places: Mapping[str, StoredTensor]) -> TensorProto:
    proto = TensorProto(name=tensor.name, data_type=onnx_type(tensor.dtype), dims=tensor.shape)
    place = places.get(tensor.stored_as or tensor.name)
    if place is None:
        proto.raw_data = tensor.load().tobytes()
        return proto
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", weights_file), ("offset", place.offset), ("length", place.nbytes)):
        proto.external_data.add(key=key, value=str(value))
    return proto
