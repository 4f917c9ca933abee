"""A way to store matrices: which nodes use them is the same for all, how they lie in their tiles is not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.operators import DOMAIN
from ..model_folder.graph_nodes import WEIGHT_TYPES
from .block_plan import stored_name
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
    """Matrices as tiles, which our operators Linear, RoutedMlp and Embedding read as they lie in the file.

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

    def routed_mlp(
        self,
        graph: GraphBuilder,
        x: str,
        gate: Tensor,
        fc: Sequence[Matrix],
        proj: Sequence[Matrix],
        name: str,
        *,
        chosen: int,
        norm: Norm,
        residual: str,
    ) -> str:
        """Emit residual + the weighted sum of the `chosen` best experts of norm(x): float32 [..., width].

        Args:
            gate: the router's weights, float32 in tiles.
            fc, proj: of each expert, as a Linear has them.
        """
        inputs = [x, *map(graph.tensor, (gate, self._bank(fc), self._bank(proj))), residual]
        hidden, width = fc[0].shape
        attributes: dict[str, Any] = {
            "K": width,
            "H": hidden,
            "experts": len(fc),
            "experts_per_token": chosen,
        }
        for bank, matrices in (("fc", fc), ("proj", proj)):
            for key in ("weight_type", "block_size"):
                if key in (lies := self._attributes(matrices[0])):
                    attributes[f"{bank}_{key}"] = lies[key]
        return graph.node("RoutedMlp", [*inputs, *norm.parameters(graph)], name, domain=DOMAIN, **attributes)

    def _bank(self, experts: Sequence[Matrix]) -> Tensor:
        """The tiles of one expert after another: uint8 [experts, tiles, bytes]."""
        tiles = [self.tiles(matrix) for matrix in experts]

        def load() -> Array:
            return np.stack([tensor.load() for tensor in tiles])

        return Tensor(stored_name(experts[0].name), "uint8", (len(tiles), *tiles[0].shape), load)

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
