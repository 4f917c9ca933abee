"""A way to store matrices: which nodes use them is the same for all, how they lie in their tiles is not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..engine.operators import DOMAIN
from ..model_folder.graph_nodes import WEIGHT_TYPES
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


class WeightFormat(ABC):
    """Matrices as tiles, which our operators Linear and Embedding read as they lie in the file.

    A layer's norms, GELU and additions are parts of its products: each operator of its own costs a hand-over between
    threads, and reading and writing all activations once more. The embedding and the head read the same tiles.
    """

    name: str
    """The `dtype` of ModelConfig that means this format."""

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
        inputs = [x, graph.tensor(self.tiles(weight)), "" if bias is None else graph.tensor(bias)]
        inputs += [residual or "", *(norm.parameters(graph) if norm is not None else ())]
        return graph.node("Linear", inputs, name, domain=DOMAIN, **self._attributes(weight), gelu=int(gelu))

    def residual_norm(self, graph: GraphBuilder, x: str, first: Norm, second: Norm, name: str) -> str:
        """Emit x + second(first(x)), float32 [..., width]."""
        (scale, bias), (second_scale, second_bias) = first.parameters(graph), second.parameters(graph)
        inputs = [x, scale, second_scale, bias, second_bias]
        return graph.node("ResidualNorm", inputs, name, domain=DOMAIN)

    def embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        """Emit table[ids]: int64 [...] -> float32 [..., width]."""
        inputs = [ids, graph.tensor(self.tiles(table))]
        return graph.node("Embedding", inputs, name, domain=DOMAIN, **self._attributes(table))

    def tied_head(self, graph: GraphBuilder, x: str, table: Matrix, name: str) -> str:
        """Emit x table^T: float32 [..., width] -> [..., entries]."""
        return self.linear(graph, x, table, None, name)

    @abstractmethod
    def weight_type(self, matrix: Matrix) -> str:
        """The element type that the matrix is stored in: "float32", "float16", "bfloat16", "int8" or "int4"."""

    @abstractmethod
    def block_size(self, matrix: Matrix) -> int | None:
        """How many weights share a scale; None: there is none."""

    @abstractmethod
    def tiles(self, matrix: Matrix) -> Tensor:
        """The matrix as it is stored, uint8 [tiles, bytes]."""

    @abstractmethod
    def restored(self, matrix: Matrix) -> Array:
        """The values, float32 [outputs, inputs], that products with this matrix compute with."""

    def _attributes(self, matrix: Matrix) -> dict[str, Any]:
        """Tell the operators how the weights lie; N and K as in MatMulNBits."""
        outputs, inputs = matrix.shape
        attributes = {"N": outputs, "K": inputs, "weight_type": WEIGHT_TYPES[self.weight_type(matrix)]}
        size = self.block_size(matrix)
        return attributes if size is None else {**attributes, "block_size": size}
