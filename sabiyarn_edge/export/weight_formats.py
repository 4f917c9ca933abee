"""How matrices are stored and multiplied: the only place where a linear layer becomes nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .graph_builder import MICROSOFT, GraphBuilder
from .tensors import Array, Tensor

__all__ = ["WEIGHT_FORMATS", "FloatWeights", "Matrix", "WeightFormat"]


@dataclass(frozen=True)
class Matrix:
    """A matrix of the checkpoint in torch's layout: float32 [outputs, inputs], or [entries, width] of an
    embedding."""

    name: str
    shape: tuple[int, int]
    load: Callable[[], Array]


class WeightFormat(Protocol):
    """One way to store and use matrices; `dtype` of export_model chooses it by name."""

    @property
    def name(self) -> str:
        """The value of `dtype` that means this format."""

    def linear(self, graph: GraphBuilder, x: str, weight: Matrix, bias: Tensor | None, name: str) -> str:
        """Emit x W^T (+ bias): [..., inputs] -> [..., outputs], float32."""

    def embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        """Emit table[ids]: int64 [...] -> float32 [..., width]."""

    def tied_head(self, graph: GraphBuilder, x: str, table: Matrix, name: str) -> str:
        """Emit x table^T with the very bytes that `embedding` reads: [..., width] -> float32 [...,
        entries]."""


@dataclass(frozen=True)
class FloatWeights:
    """float32, or float16 that onnxruntime widens once, when it loads the model (half the size on disk)."""

    name: str
    dtype: str

    def linear(self, graph: GraphBuilder, x: str, weight: Matrix, bias: Tensor | None, name: str) -> str:
        outputs, inputs = weight.shape
        # MatMul wants [inputs, outputs]; the transposition is done here, once, not at every load.
        stored = Tensor(weight.name, self.dtype, (inputs, outputs), lambda: self._encode(weight.load().T))
        if bias is None:
            return graph.node("MatMul", [x, self._as_float32(graph, graph.tensor(stored))], name)
        product = graph.node("MatMul", [x, self._as_float32(graph, graph.tensor(stored))], f"{name}.product")
        return graph.node("Add", [product, graph.tensor(bias)], name)

    def embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        stored = graph.tensor(self._table(table))
        if self.dtype == "float32":
            return graph.node("Gather", [stored, ids], name)
        return graph.cast(graph.node("Gather", [stored, ids], f"{name}.{self.dtype}"), "float32", name)

    def tied_head(self, graph: GraphBuilder, x: str, table: Matrix, name: str) -> str:
        stored = self._as_float32(graph, graph.tensor(self._table(table)))
        return graph.node("FusedMatMul", [x, stored], name, domain=MICROSOFT, transB=1)

    def _table(self, table: Matrix) -> Tensor:
        return Tensor(table.name, self.dtype, table.shape, lambda: self._encode(table.load()))

    def _as_float32(self, graph: GraphBuilder, stored: str) -> str:
        if self.dtype == "float32":
            return stored
        widened = f"{stored}.float32"
        if not any(widened in node.output for node in graph.nodes):
            graph.cast(stored, "float32", widened)
        return widened

    def _encode(self, values: Array) -> Array:
        with np.errstate(over="ignore"):  # infinities are found, and named, when the tensor is written
            return np.ascontiguousarray(values, dtype=self.dtype)


WEIGHT_FORMATS: dict[str, WeightFormat] = {
    format.name: format
    for format in (FloatWeights("float32", "float32"), FloatWeights("float16-weights", "float16"))
}
"""The values that `dtype` of export_model takes."""
