"""Matrices as blocks of 4 or 8 bits, multiplied by onnxruntime's MatMulNBits."""

from __future__ import annotations

from ..config import GPTJXConfig
from .block_plan import BlockPlan
from .block_quantization import BlockLayout, Blocks, round_to_nearest
from .graph_builder import MICROSOFT, GraphBuilder
from .scale_search import round_to_searched
from .tensors import Array, Tensor
from .weight_format import Matrix

__all__ = ["QuantizedWeights"]

INT8_ACTIVATIONS = 4
"""MatMulNBits' accuracy_level: activations are rounded to 8 bits per block too, products are of integers."""


class QuantizedWeights:
    """A quarter of float32's size or less, and several times its speed where memory is the limit.

    Embeddings are read by GatherBlockQuantized. It wants wte as [entries, bytes], MatMulNBits as
    [entries, blocks, bytes]: two shapes of the same bytes.

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

    def linear(self, graph: GraphBuilder, x: str, weight: Matrix, bias: Tensor | None, name: str) -> str:
        outputs, inputs = weight.shape
        layout = self.layout(weight)
        operands = [graph.tensor(tensor) for tensor in self._stored(weight)]
        if bias is not None:
            operands += ["", graph.tensor(bias)]  # "": g_idx, deprecated
        return graph.node(
            "MatMulNBits",
            [x, *operands],
            name,
            domain=MICROSOFT,
            N=outputs,
            K=inputs,
            bits=layout.bits,
            block_size=layout.size,
            accuracy_level=INT8_ACTIVATIONS,
        )

    def embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        codes, scales, zero_points = self._stored(table)
        shape = self._rows_shape(table)
        flat = Tensor(codes.name, codes.dtype, shape, lambda: codes.load().reshape(shape))
        return self._gather(graph, ids, (flat, scales, zero_points), table, name)

    def tied_embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        codes, scales, zero_points = self._stored(table)
        rows = codes.viewed_as(f"{codes.name}.rows", self._rows_shape(table))
        return self._gather(graph, ids, (rows, scales, zero_points), table, name)

    def tied_head(self, graph: GraphBuilder, x: str, table: Matrix, name: str) -> str:
        return self.linear(graph, x, table, None, name)

    portable_head = tied_head  # no standard operator multiplies by blocks: only onnxruntime runs these graphs

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

    def _stored(self, weight: Matrix) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, scales and zero points."""
        rows, width = weight.shape
        layout = self.layout(weight)
        count = width // layout.size
        name, of_block, of_row = weight.name, layout.packed_width(layout.size), layout.packed_width(count)
        return (
            Tensor(name, "uint8", (rows, count, of_block), lambda: self.blocks(weight).codes),
            Tensor(f"{name}.scales", "float32", (rows, count), lambda: self.blocks(weight).scales),
            Tensor(f"{name}.zero_points", "uint8", (rows, of_row), lambda: self.blocks(weight).zero_points),
        )

    def _rows_shape(self, table: Matrix) -> tuple[int, int]:
        rows, width = table.shape
        return rows, self.layout(table).packed_width(width)

    def _gather(
        self, graph: GraphBuilder, ids: str, stored: tuple[Tensor, Tensor, Tensor], table: Matrix, name: str
    ) -> str:
        codes, scales, zero_points = (graph.tensor(tensor) for tensor in stored)
        layout = self.layout(table)
        return graph.node(
            "GatherBlockQuantized",
            [codes, ids, scales, zero_points],
            name,
            domain=MICROSOFT,
            bits=layout.bits,
            block_size=layout.size,
            gather_axis=0,
            quantize_axis=1,
        )
