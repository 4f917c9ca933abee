"""The operators Linear and Embedding under onnxruntime: all weight types, and graphs that lie about their weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sabiyarn_edge.engine.operators import DOMAIN, register_operators
from tests.core.kernels import twins_linear as twin
from tests.core.kernels.twins_linear import FloatWeights, Weights, random_floats, random_weights

TYPES = {"float32": 1, "float16": 10, "bfloat16": 16, "int8": 3, "int4": 22}


def random_matrix(rng: np.random.Generator, weight_type: str) -> Weights | FloatWeights:
    if weight_type in ("int8", "int4"):
        return random_weights(rng, 301, 544, 32, int(weight_type[3:]))
    return random_floats(rng, 301, 544, weight_type)


def attributes_of(weights: Weights | FloatWeights) -> dict[str, Any]:
    shape = weights.shape
    block = {"block_size": shape["block_size"]} if "block_size" in shape else {}
    inputs = weights.values().shape[1]
    return {"N": shape["outputs"], "K": inputs, "weight_type": TYPES[shape["weight_type"]], **block}


def open_operator(
    kind: str, tiled: np.ndarray, attributes: dict[str, Any], *, threads: int = 1
) -> onnxruntime.InferenceSession:
    """A graph of this one operator, whose input is called x."""
    gelu = {"gelu": 0} if kind == "Linear" else {}
    node = helper.make_node(kind, ["x", "weights"], ["y"], domain=DOMAIN, **attributes, **gelu)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT if kind == "Linear" else TensorProto.INT64, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", [x], [y], [numpy_helper.from_array(tiled, "weights")])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # refusals are expected
    register_operators(options)
    return onnxruntime.InferenceSession(onnx.ModelProto.SerializeToString(model), options)


@pytest.mark.parametrize("weight_type", TYPES)
def test_any_cut_and_any_threads_give_the_same_bits(weight_type: str) -> None:
    """Rows alone, in chunks and all at once, by one thread and by two; and the values are those of the twin."""
    rng = np.random.default_rng(1)
    weights = random_matrix(rng, weight_type)
    x = rng.standard_normal((33, 544)).astype(np.float32)
    expected, slack = twin.linear(x, weights)
    results = []
    for threads in (1, 2):
        session = open_operator("Linear", weights.tiled(), attributes_of(weights), threads=threads)
        for count in (1, 5, 16, 33):
            parts = [session.run(None, {"x": x[i : i + count]})[0] for i in range(0, 33, count)]
            results.append(np.concatenate(parts))
    assert (np.abs(results[0] - expected) <= slack).all()
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("weight_type", TYPES)
def test_an_embedding_reads_rows(weight_type: str) -> None:
    weights = random_matrix(np.random.default_rng(2), weight_type)
    session = open_operator("Embedding", weights.tiled(), attributes_of(weights))
    ids = np.array([[0, 300], [7, 8]])
    [found] = session.run(None, {"x": ids})
    expected = weights.values()[ids]
    # Integers: a product and a sum in float32. Floats are exact.
    bound = 0 if isinstance(weights, FloatWeights) else 2 * twin.EPSILON * 15 * np.abs(weights.scales).max()
    assert (np.abs(found - expected) <= bound + 2 * twin.EPSILON * np.abs(expected) * (bound > 0)).all()
    for wrong in (-1, 301):
        with pytest.raises(Exception, match=f"ids hold {wrong}; the table has the ids 0 to 300"):
            session.run(None, {"x": np.array([wrong])})


@pytest.mark.parametrize("kind", ["Linear", "Embedding"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"N": 0}, r"the weights are \[0, 544\]; outputs must be 1 to 2\^28"),
        ({"N": -8}, r"outputs must be 1 to 2\^28"),
        ({"N": 2**61}, r"outputs must be 1 to 2\^28"),
        ({"K": 2**62}, "inputs a multiple of 8 up to"),
        ({"K": 543}, "inputs a multiple of 8 up to"),
        ({"K": 0}, "inputs a multiple of 8 up to"),
        ({"weight_type": 2}, r"weight_type is 2; it must be 1 \(float32\), 3 \(int8\), 10 \(float16\), 16"),
        ({"weight_type": 3}, "attribute block_size is missing, or no integer"),
        (
            {"weight_type": 3, "block_size": 0},
            "block_size is 0; it must be a multiple of 16 that divides the 544",
        ),
        ({"weight_type": 22, "block_size": 24}, "block_size is 24; it must be a multiple of 16 that divides"),
    ],
)
def test_attributes_that_describe_nothing(kind: str, changes: dict[str, int], message: str) -> None:
    weights = random_matrix(np.random.default_rng(3), "float16")
    with pytest.raises(Exception, match=message):
        open_operator(kind, weights.tiled(), {**attributes_of(weights), **changes})


@pytest.mark.parametrize("kind", ["Linear", "Embedding"])
@pytest.mark.parametrize(
    "changes",
    [{"N": 1000}, {"N": 8}, {"K": 1088}, {"weight_type": 1}, {"N": 2**28, "K": 2**28, "weight_type": 1}],
)
def test_weights_of_another_size_are_never_read(kind: str, changes: dict[str, int]) -> None:
    """The last one takes 2^58 bytes, which must not wrap around."""
    weights = random_matrix(np.random.default_rng(4), "float16")
    tiled = weights.tiled()
    attributes = {**attributes_of(weights), **changes}
    session = open_operator(kind, tiled, attributes)
    x = (
        np.zeros((2, attributes["K"]), np.float32)
        if attributes["K"] < 2**20
        else np.zeros((0, 8), np.float32)
    )
    with pytest.raises(Exception, match=f"the weights have {tiled.size} bytes; .* take"):
        session.run(None, {"x": x if kind == "Linear" else np.array([0])})


def test_inputs_of_another_shape_are_named() -> None:
    weights = random_matrix(np.random.default_rng(5), "bfloat16")
    session = open_operator("Linear", weights.tiled(), attributes_of(weights))
    with pytest.raises(Exception, match=r"x has shape \[3, 540\]; its last dimension must be the 544 inputs"):
        session.run(None, {"x": np.zeros((3, 540), np.float32)})


def test_no_rows() -> None:
    weights = random_matrix(np.random.default_rng(6), "float32")
    session = open_operator("Linear", weights.tiled(), attributes_of(weights))
    assert session.run(None, {"x": np.zeros((2, 0, 544), np.float32)})[0].shape == (2, 0, 301)
