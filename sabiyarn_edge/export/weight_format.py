"""What a way of storing matrices must offer. Only behind this does a linear layer become nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .graph_builder import GraphBuilder
from .norms import Norm
from .tensors import Array, Tensor

__all__ = ["Matrix", "WeightFormat"]


@dataclass(frozen=True)
class Matrix:
    """A matrix of the checkpoint in torch's layout: float32 [outputs, inputs], an embedding's [entries,
    width]."""

    name: str
    shape: tuple[int, int]
    load: Callable[[], Array]


class WeightFormat(Protocol):
    """One way to store and use matrices; `dtype` of export_model chooses it by name."""

    @property
    def name(self) -> str:
        """The value of `dtype` that means this format."""

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
        """Emit residual + gelu(norm(x) W^T + bias), each where asked for: [..., inputs] -> [..., outputs], float32."""

    def residual_norm(self, graph: GraphBuilder, x: str, first: Norm, second: Norm, name: str) -> str:
        """Emit x + second(first(x)), float32 [..., width]."""

    def embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        """Emit table[ids]: int64 [...] -> float32 [..., width]."""

    def tied_head(self, graph: GraphBuilder, x: str, table: Matrix, name: str) -> str:
        """Emit x table^T: [batch, n, width] -> float32 [batch, n, entries]."""

    def storage(self, matrix: Matrix) -> tuple[str, int | None]:
        """The element type (float16, int4 ...) and how many weights share a scale (None: there is none)."""

    def restored(self, matrix: Matrix) -> Array:
        """The values, float32 [outputs, inputs], that products with this matrix compute with."""
