"""Matrices of 8 bits with one scale per output channel, multiplied as integers by onnxruntime's QGemm.

MatMulNBits has no kernel for 8-bit blocks on ARM CPUs without dot product instructions (Cortex-A53 and A72): there it
makes float32 of the whole matrix for every token. QGemm has kernels for every CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .graph_builder import MICROSOFT, GraphBuilder
from .tensors import Array, Tensor
from .weight_format import Matrix

__all__ = ["ChannelWeights"]

LARGEST = 127
"""Of a code's magnitude, weight and activation: the range is the same on both sides of 0."""

ZERO_POINT = 128
"""Of activations, which are unsigned: the kernels for x86-64 multiply unsigned by signed bytes."""

LEAST_RANGE = 1e-30
"""Of a token's activations: all of them may be 0, and they are divided by their range."""


@dataclass(frozen=True)
class _Rounded:
    codes: Array
    """int8 [outputs, inputs]"""
    scales: Array
    """float32 [outputs]"""


class ChannelWeights:
    """A quarter of float32's size, at nearly the same logits, and fast on any CPU.

        weight ~ code * scale[output],   activation ~ (code - 128) / 127 * range[token]

    Activations are rounded token by token, so a row's results do not depend on what is computed beside it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def linear(self, graph: GraphBuilder, x: str, weight: Matrix, bias: Tensor | None, name: str) -> str:
        if bias is None:
            return self._product(graph, x, weight, name)
        return graph.node(
            "Add", [self._product(graph, x, weight, f"{name}.unbiased"), graph.tensor(bias)], name
        )

    def embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        column = self._scales(table).viewed_as(f"{table.name}.scales.column", (table.shape[0], 1))
        codes = graph.node("Gather", [graph.tensor(self._codes(table)), ids], f"{name}.codes")
        scales = graph.node("Gather", [graph.tensor(column), ids], f"{name}.scales")
        return graph.node("Mul", [graph.cast(codes, "float32", f"{name}.float32"), scales], name)

    tied_embedding = embedding

    def tied_head(self, graph: GraphBuilder, x: str, table: Matrix, name: str) -> str:
        return self._product(graph, x, table, name)

    portable_head = (
        tied_head  # no standard operator makes float32 of integers: only onnxruntime runs these graphs
    )

    def storage(self, matrix: Matrix) -> tuple[str, int | None]:
        return "int8", matrix.shape[1]

    def restored(self, matrix: Matrix) -> Array:
        rounded = _round_to_nearest(matrix.load())
        return rounded.codes * rounded.scales[:, None]

    def _product(self, graph: GraphBuilder, x: str, weight: Matrix, name: str) -> str:
        outputs, inputs = weight.shape
        step = graph.tensor(
            Tensor("activations.step", "float32", (), lambda: np.array(1 / LARGEST, np.float32))
        )
        zero_point = graph.tensor(
            Tensor("activations.zero_point", "uint8", (), lambda: np.array(ZERO_POINT, np.uint8))
        )
        zeros = Tensor(f"{weight.name}.zero_points", "int8", (outputs,), lambda: np.zeros(outputs, np.int8))
        operands = [graph.tensor(tensor) for tensor in (self._codes(weight), self._scales(weight), zeros)]
        range_ = self._range(graph, x, name)
        within_1 = graph.node("Div", [x, range_], f"{name}.within_1")
        codes = graph.node("QuantizeLinear", [within_1, step, zero_point], f"{name}.codes")

        def product(rows: str, output: str) -> str:
            return graph.node(
                "QGemm", [rows, step, zero_point, *operands], output, domain=MICROSOFT, transB=1
            )

        multiplied = graph.on_rows(codes, inputs, outputs, f"{name}.product", product)
        return graph.node("Mul", [multiplied, range_], name)

    def _range(self, graph: GraphBuilder, x: str, name: str) -> str:
        """The largest magnitude of each token's activations: [..., inputs] -> [..., 1]."""
        least = Tensor("activations.least_range", "float32", (), lambda: np.array(LEAST_RANGE, np.float32))
        last = graph.integers("activations.last_axis", [-1])
        magnitudes = graph.node("Abs", [x], f"{name}.magnitudes")
        largest = graph.node("ReduceMax", [magnitudes, last], f"{name}.largest", keepdims=1)
        return graph.node("Max", [largest, graph.tensor(least)], f"{name}.range")

    def _codes(self, weight: Matrix) -> Tensor:
        return Tensor(weight.name, "int8", weight.shape, lambda: _round_to_nearest(weight.load()).codes)

    def _scales(self, weight: Matrix) -> Tensor:
        return Tensor(
            f"{weight.name}.scales",
            "float32",
            weight.shape[:1],
            lambda: _round_to_nearest(weight.load()).scales,
        )


def _round_to_nearest(weights: Array) -> _Rounded:
    """Each weight to the nearest code of its row's range."""
    scales = np.abs(weights).max(axis=1) / np.float32(LARGEST)
    scales[scales == 0] = 1  # a row of zeros
    with np.errstate(invalid="ignore"):  # NaN is found, and named, when the scales are written
        return _Rounded(np.rint(weights / scales[:, None]).astype(np.int8), scales)
