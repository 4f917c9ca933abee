"""Matrices as blocks of 4 or 8 bits in tiles, multiplied by our operators."""

from __future__ import annotations

from typing import Any

from ..engine.operators import DOMAIN
from ..model_folder.config import GPTJXConfig
from .block_plan import BlockPlan
from .block_quantization import BlockLayout, Blocks, round_to_nearest
from .graph_builder import GraphBuilder
from .norms import Norm
from .scale_search import round_to_searched
from .tensors import Array, Tensor, check_finite
from .tiles import tiled, tiled_shape
from .weight_format import Matrix

__all__ = ["QuantizedWeights"]


class QuantizedWeights:
    """A quarter of float32's size or less, and several times its speed where memory is the limit.

    Activations are rounded to 8 bits block by block too, and products are of integers. The embedding and the head read
    the same tiles. A layer's norms, GELU and additions are parts of its products: each operator of its own costs a
    hand-over between threads, and reading and writing all activations once more.

    Each matrix is rounded when it is first needed, unless put() has given its blocks, and its blocks are kept until
    the export is done.
    """

    def __init__(self, plan: BlockPlan, config: GPTJXConfig, rounding: str = "nearest") -> None:
        """
        Args:
            rounding: of 4 bits: "nearest", or "search" (also what "gptq" does with the matrices it leaves out). 8 bits
                are rounded to nearest: that leaves little to win.
        """
        self.name = plan.name
        self._plan, self._config, self._rounding = plan, config, rounding
        self._blocks: dict[str, Blocks] = {}

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
        inputs = [x, graph.tensor(self._tiles(weight)), "" if bias is None else graph.tensor(bias)]
        inputs += [residual or "", *(norm.parameters(graph) if norm is not None else ())]
        return graph.node("Linear", inputs, name, domain=DOMAIN, **self._shape(weight), gelu=int(gelu))

    def residual_norm(self, graph: GraphBuilder, x: str, first: Norm, second: Norm, name: str) -> str:
        (scale, bias), (second_scale, second_bias) = first.parameters(graph), second.parameters(graph)
        inputs = [x, scale, second_scale, bias, second_bias]
        return graph.node("ResidualNorm", inputs, name, domain=DOMAIN)

    def embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        tiles = graph.tensor(self._tiles(table))
        return graph.node("Embedding", [ids, tiles], name, domain=DOMAIN, **self._shape(table))

    def tied_head(self, graph: GraphBuilder, x: str, table: Matrix, name: str) -> str:
        return self.linear(graph, x, table, None, name)

    def storage(self, matrix: Matrix) -> tuple[str, int | None]:
        layout = self.layout(matrix)
        return f"int{layout.bits}", layout.size

    def restored(self, matrix: Matrix) -> Array:
        return self.blocks(matrix).restored()

    def layout(self, matrix: Matrix) -> BlockLayout:
        """How this matrix is cut and rounded."""
        return self._plan.layout(matrix.name, matrix.shape[1], self._config)

    def blocks(self, matrix: Matrix) -> Blocks:
        """The matrix as it is stored."""
        if matrix.name not in self._blocks:
            layout = self.layout(matrix)
            to_nearest = layout.bits == 8 or self._rounding == "nearest"
            self._blocks[matrix.name] = (round_to_nearest if to_nearest else round_to_searched)(
                matrix.load(), layout
            )
        return self._blocks[matrix.name]

    def put(self, matrix: Matrix, blocks: Blocks) -> None:
        """Store the matrix so, however it was rounded."""
        self._blocks[matrix.name] = blocks

    def _shape(self, weight: Matrix) -> dict[str, Any]:
        """Attributes that tell the operators how the weights lie; N and K as in MatMulNBits."""
        layout, (outputs, inputs) = self.layout(weight), weight.shape
        return {"N": outputs, "K": inputs, "block_size": layout.size, "bits": layout.bits}

    def _tiles(self, weight: Matrix) -> Tensor:
        def load() -> Array:
            blocks = self.blocks(weight)
            check_finite(blocks.scales, weight.name, self.name)
            return tiled(blocks)

        return Tensor(weight.name, "uint8", tiled_shape(*weight.shape, self.layout(weight)), load)
