"""Fuzz targets: our operators over inputs of any shape and type, all of them, the optional ones too.

Each file is a graph of one node whose inputs are constants: what a model folder with right hashes can hold. The core's
answer must be a result or onnxruntime's error with our words. Whether memory outside an input is read, only a build
with sanitizers shows (tests/test_native.py --sanitize).
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from sabiyarn_edge.engine.operators import DOMAIN, register_operators
from tests.campaigns.fuzz.target import Target

__all__ = ["OPERATORS"]

FLOAT32, FLOAT16, BFLOAT16, INT8, INT4 = 1, 10, 16, 3, 22  # onnx.TensorProto's
WIDTH, OUTPUTS, EXPERTS, BLOCK = 64, 24, 3, 32
SIZES = (0, 1, 2, 3, 5, 7, 8, 9, 16, 24, 32, 63, 64, 65, 96, 128, 2**20)
NUMBERS = (0, 1, -1, 2, 3, 5, 15, 16, 17, 64, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63))
MOST_VALUES = 2**17
"""Of an input; larger shapes are drawn with a 0 in them."""


class NotNamedError(BaseException):
    """An error without our words; it is no Exception, which all of onnxruntime's are."""


class OperatorShapes(Target):
    """One node. The bytes are its graph."""

    module = None
    allowed = (Exception,)  # onnxruntime's exceptions share no base class but this
    kind: str
    inputs: tuple[str, ...]
    words = (
        "must be",
        "missing",
        "has another type",
        "bytes; ",
        "neither",
        "is given",
        "too large",
        "too many",
        "ids hold",
        "experts",
        "Type Error",
        "Invalid model",
        "This is an invalid model",
        "segments: ",
        "not int8",
        "without",
        "expected to have type",
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._rng = np.random.default_rng(1)

    def example(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Inputs and attributes with nothing wrong."""
        raise NotImplementedError

    def whole(self) -> bytes:
        return self._model(*self.example(self._rng))

    def make(self, rng: random.Random) -> bytes:
        inputs, attributes = self.example(np.random.default_rng(rng.randrange(2**32)))
        for _ in range(rng.choice([1, 1, 2, 3])):
            name = rng.choice([*self.inputs, *attributes])
            if name in attributes:
                attributes[name] = rng.choice([*NUMBERS, WIDTH, OUTPUTS, BLOCK, FLOAT16, INT8, INT4])
            elif name in inputs and rng.random() < 0.15:
                del inputs[name]
            else:
                inputs[name] = _other(inputs.get(name, np.zeros(1, np.float32)), rng)
        return self._model(inputs, attributes)

    def _model(self, inputs: dict[str, np.ndarray], attributes: dict[str, int]) -> bytes:
        names = [name if name in inputs else "" for name in self.inputs]
        while names and not names[-1]:
            names.pop()
        node = helper.make_node(self.kind, names, ["y"], domain=DOMAIN, **attributes)
        y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        tensors = [numpy_helper.from_array(array, name) for name, array in inputs.items()]
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
        graph = helper.make_graph([node], "one", [], [y], tensors)
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())

    def read(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        register_operators(options)
        try:
            onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"]).run(None, {})
        except Exception as error:
            # A size that nobody checked shows as a container's or an allocator's complaint.
            if not any(word in str(error) for word in self.words):
                raise NotNamedError(str(error)) from error
            raise


def _other(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """An input with other sizes, another rank, other values or another type."""
    shape = list(array.shape)
    kind = rng.randrange(6)
    if kind == 0 and shape:
        shape[rng.randrange(len(shape))] = rng.choice(SIZES)
    elif kind == 1:
        shape.insert(rng.randint(0, len(shape)), rng.choice(SIZES))
    elif kind == 2 and shape:
        del shape[rng.randrange(len(shape))]
    elif kind == 3:
        shape = [rng.choice(SIZES) for _ in range(rng.randint(0, 5))]
    elif kind == 4 and array.size:
        changed = array.copy()
        place = rng.randrange(array.size)
        if array.dtype == np.int64:
            changed.flat[place] = rng.choice(NUMBERS)
        elif array.dtype.kind == "f":
            changed.flat[place] = rng.choice([np.nan, np.inf, -np.inf, 0.0, 1e30])
        else:
            changed.flat[place] = rng.randrange(100)
        return changed
    elif kind == 5:
        return array.astype(rng.choice([np.float32, np.float16, np.int8, np.uint8, np.int64, np.float64]))
    if _size(shape) > MOST_VALUES:
        shape[rng.randrange(len(shape))] = 0
    return np.resize(array, shape).astype(array.dtype) if array.size else np.zeros(shape, array.dtype)


def _size(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _tiles(outputs: int, inputs: int, weight_type: int, rng: np.random.Generator) -> np.ndarray:
    """Bytes of a matrix: 8 rows a tile. Of integers the scales are part of it; any bytes are weights."""
    bits = {FLOAT32: 32, FLOAT16: 16, BFLOAT16: 16, INT8: 8, INT4: 4}[weight_type]
    from tests.core.kernels.twins_linear import random_floats, random_weights

    if weight_type in (INT8, INT4):
        return np.asarray(random_weights(rng, outputs, inputs, BLOCK, bits).tiled())
    name = {FLOAT32: "float32", FLOAT16: "float16", BFLOAT16: "bfloat16"}[weight_type]
    return np.asarray(random_floats(rng, outputs, inputs, name).tiled())


def _type(rng: np.random.Generator) -> int:
    return int(rng.choice([FLOAT32, FLOAT16, BFLOAT16, INT8, INT4]))


class LinearShapes(OperatorShapes):
    kind = "Linear"
    inputs = ("x", "weights", "bias", "residual", "norm_scale", "norm_bias")

    def example(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        kind, rows = _type(rng), int(rng.integers(1, 40))
        inputs = {
            "x": _floats(rng, rows, WIDTH),
            "weights": _tiles(OUTPUTS, WIDTH, kind, rng),
            "bias": _floats(rng, OUTPUTS),
            "residual": _floats(rng, rows, OUTPUTS),
            "norm_scale": _floats(rng, WIDTH),
            "norm_bias": _floats(rng, WIDTH),
        }
        return inputs, {"N": OUTPUTS, "K": WIDTH, "gelu": 1, "weight_type": kind, "block_size": BLOCK}


class EmbeddingShapes(OperatorShapes):
    kind = "Embedding"
    inputs = ("ids", "table")

    def example(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        kind = _type(rng)
        inputs = {"ids": rng.integers(0, OUTPUTS, 9), "table": _tiles(OUTPUTS, WIDTH, kind, rng)}
        return inputs, {"N": OUTPUTS, "K": WIDTH, "weight_type": kind, "block_size": BLOCK}


class ResidualNormShapes(OperatorShapes):
    kind = "ResidualNorm"
    inputs = ("x", "first_scale", "second_scale", "first_bias", "second_bias")

    def example(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        return {
            "x": _floats(rng, int(rng.integers(1, 40)), WIDTH),
            **{name: _floats(rng, WIDTH) for name in self.inputs[1:]},
        }, {}


class RoutedMlpShapes(OperatorShapes):
    kind = "RoutedMlp"
    inputs = ("x", "gate", "fc_bank", "proj_bank", "residual", "norm_scale", "norm_bias")

    def example(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        fc, proj, rows = _type(rng), _type(rng), int(rng.integers(1, 40))
        inputs = {
            "x": _floats(rng, rows, WIDTH),
            "gate": _tiles(EXPERTS, WIDTH, FLOAT32, rng),
            "fc_bank": np.stack([_tiles(32, WIDTH, fc, rng) for _ in range(EXPERTS)]),
            "proj_bank": np.stack([_tiles(WIDTH, 32, proj, rng) for _ in range(EXPERTS)]),
            "residual": _floats(rng, rows, WIDTH),
            "norm_scale": _floats(rng, WIDTH),
            "norm_bias": _floats(rng, WIDTH),
        }
        attributes = {"K": WIDTH, "H": 32, "experts": EXPERTS, "experts_per_token": 2}
        attributes |= {"fc_weight_type": fc, "proj_weight_type": proj}
        return inputs, {**attributes, "fc_block_size": BLOCK, "proj_block_size": BLOCK}


class AttentionShapes(OperatorShapes):
    kind = "CachedAttention"
    inputs = (
        *("qkv", "past_key", "past_value", "segments", "window", "attention_mask"),
        *("key_scale", "value_scale"),
    )

    def example(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        rows, heads, head_dim, capacity = 3, 2, 16, 64
        dtype = rng.choice(["float16", "float32", "int8"])
        counts = rng.integers(1, 20, 2).tolist()
        masked = bool(rng.integers(2))
        inputs: dict[str, Any] = {
            "qkv": _floats(rng, sum(counts), 3 * heads * head_dim),
            "past_key": np.zeros((rows, heads, capacity // 16, head_dim, 16), dtype),
            "past_value": np.zeros((rows, heads, capacity, head_dim), dtype),
            "segments": np.array(
                [[2, counts[0], counts[0], 0, 0 if masked else -1], [0, counts[1], counts[1] + 7, 0, -1]],
                np.int64,
            ),
            "window": np.array([48, 2], np.int64),
            "attention_mask": np.zeros(counts[0] ** 2 if masked else 0, np.float32),
        }
        if dtype == "int8":
            inputs["key_scale"] = np.full((heads, head_dim), 0.1, np.float32)
            inputs["value_scale"] = np.full((heads, head_dim), 0.1, np.float32)
        return inputs, {}


OPERATORS: dict[str, type[Target]] = {
    "linear": LinearShapes,
    "embedding": EmbeddingShapes,
    "residual_norm": ResidualNormShapes,
    "routed_mlp": RoutedMlpShapes,
    "attention": AttentionShapes,
}
