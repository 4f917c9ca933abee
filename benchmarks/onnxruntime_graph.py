"""The same model in onnxruntime's own operators, for engines that know no others.

MatMulNBits and GatherBlockQuantized on blocks of 8 or 4 bits, GroupQueryAttention on a float16 cache: what onnxruntime
offers for such a model, fused as far as it goes. The blocks are rounded exactly as this package's exports round them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sabiyarn_edge.export.block_plan import BlockPlan
from sabiyarn_edge.export.decoder_graph import DecoderGraph, Parameters
from sabiyarn_edge.export.exporter import GRAPH_FILES, WEIGHTS_FILE
from sabiyarn_edge.export.graph_builder import GraphBuilder
from sabiyarn_edge.export.masked_graph import build_masked_decoder
from sabiyarn_edge.export.norms import Norm
from sabiyarn_edge.export.onnx_file import make_model, write_onnx
from sabiyarn_edge.export.quantized_weights import QuantizedWeights
from sabiyarn_edge.export.tensors import Tensor
from sabiyarn_edge.export.weight_format import Matrix
from sabiyarn_edge.export.weights_writer import plan_weights, write_weights
from sabiyarn_edge.model_folder.config import ModelConfig
from sabiyarn_edge.modeling import GPTJXConfig

__all__ = ["write_onnxruntime_folder"]

MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own operators (docs/ContribOperators.md in its repository)."""

INT8_ACTIVATIONS = 4
"""MatMulNBits' accuracy_level: activations are rounded to 8 bits per block too, products are of integers."""


def write_onnxruntime_folder(
    folder: Path,
    config: GPTJXConfig,
    tensors: dict[str, np.ndarray[Any, Any]],
    plan: BlockPlan,
    rounding: str,
) -> None:
    """Write decoder.onnx, decoder_masked.onnx, weights.bin and config.json."""
    shapes = {name: values.shape for name, values in tensors.items()}
    parameters = Parameters(shapes, lambda name: tensors[name])
    weights = _Blocks(plan, config, rounding)
    graphs = {
        "decoder": _Decoder(parameters, config, weights, "float16").build(),
        "decoder_masked": build_masked_decoder(parameters, config, weights, "float16"),
    }
    header = write_weights(plan_weights(graphs["decoder"].tensors.values()), folder / WEIGHTS_FILE)
    hashes = {}
    for name, graph in graphs.items():
        write_onnx(make_model(graph, name, WEIGHTS_FILE, header.tensors, {}), folder / GRAPH_FILES[name])
        hashes[name] = hashlib.sha256((folder / GRAPH_FILES[name]).read_bytes()).hexdigest()
    ModelConfig(
        gptjx=config,
        dtype=plan.name,
        graphs=dict(GRAPH_FILES),
        graph_hashes=hashes,
        weights_bytes=(folder / WEIGHTS_FILE).stat().st_size,
        weights_hash=header.weights_hash,
    ).save(folder)


class _Blocks(QuantizedWeights):
    """GatherBlockQuantized wants wte as [entries, bytes], MatMulNBits as [entries, blocks, bytes]: two shapes of the
    same bytes."""

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
        outputs, inputs = weight.shape
        layout = self.layout(weight)
        operands = [graph.tensor(tensor) for tensor in self._stored(weight)]
        if bias is not None:
            operands += ["", graph.tensor(bias)]  # "": g_idx, deprecated
        value = graph.node(
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
        if gelu:
            value = graph.node("Gelu", [value], f"{name}.gelu")
        return value if residual is None else graph.node("Add", [residual, value], f"{name}.added")

    def residual_norm(self, graph: GraphBuilder, x: str, first: Norm, second: Norm, name: str) -> str:
        return graph.node("Add", [x, second.apply(graph, first.apply(graph, x))], name)

    def embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        codes, scales, zero_points = self._stored(table)
        rows, width = table.shape
        layout = self.layout(table)
        flat = codes.viewed_as(f"{codes.name}.rows", (rows, layout.packed_width(width)))
        if codes.name not in graph.tensors:  # the view's bytes must stand somewhere
            graph.tensor(codes)
        return graph.node(
            "GatherBlockQuantized",
            [graph.tensor(flat), ids, graph.tensor(scales), graph.tensor(zero_points)],
            name,
            domain=MICROSOFT,
            bits=layout.bits,
            block_size=layout.size,
            gather_axis=0,
            quantize_axis=1,
        )

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


@dataclass
class _Decoder(DecoderGraph):
    def _declare_inputs(self) -> None:
        super()._declare_inputs()
        self.graph.input("total_sequence_length", "int32", [1])

    def _declare_other_outputs(self) -> None:
        for i in range(self.config.n_layer):
            for side in ("key", "value"):
                self.graph.output(f"present.{i}.{side}", self.kv_cache_dtype, self._cache_shape())

    def _attention(self, i: int, qkv: str) -> str:
        graph, name = self.graph, f"h.{i}.attn"
        half = graph.cast(qkv, self.kv_cache_dtype, f"{name}.qkv_{self.kv_cache_dtype}")
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        attended = graph.node(
            "GroupQueryAttention",
            [half, "", "", *past, "seqlens_k", "total_sequence_length"],
            name,
            outputs=[name, f"present.{i}.key", f"present.{i}.value"],
            domain=MICROSOFT,
            num_heads=self.config.n_heads,
            kv_num_heads=self.config.n_heads,
        )
        return graph.cast(attended, "float32", f"{name}.float32")
