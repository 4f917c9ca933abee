"""Matrices as 8-bit blocks, multiplied by onnxruntime's MatMulNBits."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import GPTJXConfig
from ..errors import ExportError
from .block_quantization import BLOCK_SIZES, block_codes, block_scales, block_size_for, block_zero_points
from .graph_builder import MICROSOFT, GraphBuilder
from .tensors import Tensor
from .weight_format import Matrix

__all__ = ["QuantizedWeights"]

INT8_ACTIVATIONS = 4
"""MatMulNBits' accuracy_level: activations are rounded to 8 bits per block too, products are of integers."""


@dataclass(frozen=True)
class QuantizedWeights:
    """A quarter of float32's size, and several times its speed where memory is the limit.

    Embeddings are read by GatherBlockQuantized. It wants wte as [entries, width], MatMulNBits as
    [entries, blocks, block_size]: two shapes of the same bytes.
    """

    name: str
    logit_bound: float

    def check(self, config: GPTJXConfig) -> None:
        if block_size_for(config.n_embd) is None:
            raise ExportError(
                f"n_embd is {config.n_embd}, but {self.name} stores weights in blocks of {BLOCK_SIZES[-1]} or more, "
                f"which must divide it. Export with --dtype float32 or float16-weights."
            )

    def linear(self, graph: GraphBuilder, x: str, weight: Matrix, bias: Tensor | None, name: str) -> str:
        outputs, inputs = weight.shape
        operands = [graph.tensor(tensor) for tensor in _stored(weight)]
        if bias is not None:
            operands += ["", graph.tensor(bias)]  # "": g_idx, deprecated
        return graph.node(
            "MatMulNBits",
            [x, *operands],
            name,
            domain=MICROSOFT,
            N=outputs,
            K=inputs,
            bits=8,
            block_size=_block_size(weight),
            accuracy_level=INT8_ACTIVATIONS,
        )

    def embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        codes, scales, zero_points = _stored(table)
        flat = Tensor(codes.name, codes.dtype, table.shape, lambda: codes.load().reshape(table.shape))
        return _gather(graph, ids, (flat, scales, zero_points), _block_size(table), name)

    def tied_embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        codes, scales, zero_points = _stored(table)
        rows = codes.viewed_as(f"{codes.name}.rows", table.shape)
        return _gather(graph, ids, (rows, scales, zero_points), _block_size(table), name)

    def tied_head(self, graph: GraphBuilder, x: str, table: Matrix, name: str) -> str:
        return self.linear(graph, x, table, None, name)

    portable_head = tied_head  # no standard operator multiplies by blocks: only onnxruntime runs these graphs


def _stored(weight: Matrix) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and zero points."""
    rows, width = weight.shape
    size = _block_size(weight)
    blocks = width // size
    return (
        Tensor(weight.name, "uint8", (rows, blocks, size), lambda: block_codes(weight.load(), size)),
        Tensor(f"{weight.name}.scales", "float32", (rows, blocks), lambda: block_scales(weight.load(), size)),
        Tensor(
            f"{weight.name}.zero_points",
            "uint8",
            (rows, blocks),
            lambda: block_zero_points(weight.load(), size),
        ),
    )


def _block_size(weight: Matrix) -> int:
    size = block_size_for(weight.shape[1])
    assert size is not None  # check() has seen to it: every width is n_embd or 4 * n_embd
    return size


def _gather(
    graph: GraphBuilder, ids: str, table: tuple[Tensor, Tensor, Tensor], block_size: int, name: str
) -> str:
    codes, scales, zero_points = (graph.tensor(tensor) for tensor in table)
    return graph.node(
        "GatherBlockQuantized",
        [codes, ids, scales, zero_points],
        name,
        domain=MICROSOFT,
        bits=8,
        block_size=block_size,
        gather_axis=0,
        quantize_axis=1,
    )
