"""Matrices as blocks of 4 or 8 bits in tiles, multiplied by our operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..model_folder.config import GPTJXConfig
from .block_plan import BlockPlan
from .block_quantization import BlockLayout, Blocks, round_to_nearest
from .scale_search import round_to_nearest_entries, round_to_searched
from .table_quantization import TableBlocks
from .tensors import Array, Tensor, check_finite
from .tiles import tiled, tiled_shape
from .weight_format import Matrix, WeightFormat

__all__ = ["QuantizedWeights"]


class QuantizedWeights(WeightFormat):
    """A quarter of float32's size or less, and several times its speed where memory is the limit.

    Activations are rounded to 8 bits block by block too, and products are of integers.

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
        self._blocks: dict[str, Blocks | TableBlocks] = {}

    def weight_type(self, matrix: Matrix) -> str:
        return f"int{self.layout(matrix).bits}"

    def block_size(self, matrix: Matrix) -> int | None:
        return self.layout(matrix).size

    def tiles(self, matrix: Matrix) -> Tensor:
        def load() -> Array:
            blocks = self.blocks(matrix)
            scales = blocks.scales if isinstance(blocks, Blocks) else blocks.scales.rows
            check_finite(scales, matrix.name, self.name)
            return tiled(blocks)

        return Tensor(matrix.name, "uint8", tiled_shape(*matrix.shape, self.layout(matrix)), load)

    def restored(self, matrix: Matrix) -> Array:
        return self.blocks(matrix).restored()

    def layout(self, matrix: Matrix) -> BlockLayout:
        """How this matrix is cut and rounded."""
        return self._plan.layout(matrix.name, matrix.shape[1], self._config)

    def blocks(self, matrix: Matrix) -> Blocks | TableBlocks:
        """The matrix as it is stored."""
        if matrix.name not in self._blocks:
            layout, weights = self.layout(matrix), matrix.load()
            if layout.bits == 8:
                blocks: Blocks | TableBlocks = round_to_nearest(weights, layout)
            elif self._rounding == "nearest":
                blocks = round_to_nearest_entries(weights, layout)
            else:
                blocks = round_to_searched(weights, layout)
            self._blocks[matrix.name] = blocks
        return self._blocks[matrix.name]

    def keep_in_int8(self, names: Sequence[str]) -> None:
        """Give these tensors 8 bits and forget how matrices were rounded before."""
        rules = tuple(name.removeprefix("transformer.").removesuffix(".weight") for name in names)
        self._plan = replace(self._plan, keep_int8=rules)
        self._blocks.clear()

    def put(self, matrix: Matrix, blocks: Blocks | TableBlocks) -> None:
        """Store the matrix so, however it was rounded."""
        self._blocks[matrix.name] = blocks
