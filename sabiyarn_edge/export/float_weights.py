"""Matrices as float32 or float16."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .graph_builder import GraphBuilder
from .norms import Norm
from .tensors import Array, Tensor
from .weight_format import Matrix

__all__ = ["FloatWeights"]


@dataclass(frozen=True)
class FloatWeights:
    """float32, or float16 that onnxruntime widens once, when it loads the model (half the size on disk)."""

    name: str
    dtype: str

    def linear(
        self,
        graph: GraphBuilder,
        x: str,
        weight: Matrix,
        bias: Tensor | None,
        name: str,
        *,
        norm: Norm | None = None,
        gelu: bool = False,
        residual: str | None = None,
    ) -> str:
        if norm is not None:
            x = norm.apply(graph, x)
        value = self._product(graph, x, weight, bias, name)
        if gelu:
            value = graph.node("Gelu", [value], f"{name}.gelu")
        return value if residual is None else graph.node("Add", [residual, value], f"{name}.added")

    def residual_norm(self, graph: GraphBuilder, x: str, first: Norm, second: Norm, name: str) -> str:
        return graph.node("Add", [x, second.apply(graph, first.apply(graph, x))], name)

    def _product(self, graph: GraphBuilder, x: str, weight: Matrix, bias: Tensor | None, name: str) -> str:
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
        # Gemm takes the table as it stands; MatMul would need a transposed copy of it. Gemm knows no batches.
        entries, width = table.shape
        stored = self._as_float32(graph, graph.tensor(self._table(table)))

        def product(rows: str, output: str) -> str:
            return graph.node("Gemm", [rows, stored], output, transB=1)

        return graph.on_rows(x, width, entries, name, product)

    def storage(self, matrix: Matrix) -> tuple[str, int | None]:
        return self.dtype, None

    def restored(self, matrix: Matrix) -> Array:
        return self._encode(matrix.load()).astype(np.float32)

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
