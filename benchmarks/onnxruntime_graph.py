"""The same model in onnxruntime's own operators, for engines that know no others.

MatMulNBits and GatherBlockQuantized on blocks of 8 or 4 bits, each rounded to nearest; and attention on a float16 cache
in two ways, in a graph each:

    decoder.onnx        GroupQueryAttention, which appends to the cache in place: fused as far as possible
    concatenating.onnx  standard operators and a mask; the caller concatenates past and present
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.onnxruntime_blocks import packed_width, round_to_blocks
from sabiyarn_edge.export.block_plan import BlockPlan
from sabiyarn_edge.export.decoder_graph import DecoderGraph, Parameters
from sabiyarn_edge.export.exporter import WEIGHTS_FILE
from sabiyarn_edge.export.graph_builder import GraphBuilder
from sabiyarn_edge.export.norms import Norm
from sabiyarn_edge.export.onnx_file import make_model, write_onnx
from sabiyarn_edge.export.quantized_weights import QuantizedWeights
from sabiyarn_edge.export.tensors import Tensor
from sabiyarn_edge.export.weight_format import Matrix
from sabiyarn_edge.export.weights_writer import plan_weights, write_weights
from sabiyarn_edge.model_folder.config import ModelConfig
from sabiyarn_edge.modeling import GPTJXConfig

__all__ = ["CONCATENATING_GRAPH", "write_onnxruntime_folder"]

CONCATENATING_GRAPH = "concatenating.onnx"
"""The graph of standard attention, in the folder that write_onnxruntime_folder makes."""

MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own operators (docs/ContribOperators.md in its repository)."""

INT8_ACTIVATIONS = 4
"""MatMulNBits' accuracy_level for matmuls of integers: activations are quantized to 8 bits per block too."""


def write_onnxruntime_folder(
    folder: Path,
    config: GPTJXConfig,
    tensors: dict[str, np.ndarray[Any, Any]],
    plan: BlockPlan,
) -> None:
    """Write decoder.onnx, concatenating.onnx, weights.bin and config.json."""
    shapes = {name: values.shape for name, values in tensors.items()}
    parameters = Parameters(shapes, lambda name: tensors[name])
    weights = _Blocks(plan, config)
    graphs = {
        "decoder.onnx": _InPlace(parameters, config, weights, "float16").build(),
        CONCATENATING_GRAPH: _Concatenating(parameters, config, weights, "float16").build(),
    }
    header = write_weights(plan_weights(graphs["decoder.onnx"].tensors.values()), folder / WEIGHTS_FILE)
    for name, graph in graphs.items():
        model = make_model(graph, Path(name).stem, WEIGHTS_FILE, header.tensors, {})
        write_onnx(model, folder / name)
    ModelConfig(
        gptjx=config,
        dtype=plan.name,
        graph_hash=hashlib.sha256((folder / "decoder.onnx").read_bytes()).hexdigest(),
        weights_bytes=(folder / WEIGHTS_FILE).stat().st_size,
        weights_hash=header.weights_hash,
    ).save(folder)


class _Blocks(QuantizedWeights):
    """Give wte in two shapes of the same bytes: [entries, bytes] for GatherBlockQuantized, [entries, blocks, bytes] for
    MatMulNBits."""

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
            x = _layer_norm(graph, x, norm)
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
        return graph.node("Add", [x, _layer_norm(graph, _layer_norm(graph, x, first), second)], name)

    def embedding(self, graph: GraphBuilder, ids: str, table: Matrix, name: str) -> str:
        codes, scales, zero_points = self._stored(table)
        rows, width = table.shape
        layout = self.layout(table)
        flat = codes.viewed_as(f"{codes.name}.rows", (rows, packed_width(width, layout.bits)))
        if codes.name not in graph.tensors:  # the bytes of the view
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
        of_block, of_row = packed_width(layout.size, layout.bits), packed_width(count, layout.bits)
        name = weight.name

        @functools.cache
        def rounded() -> tuple[np.ndarray[Any, Any], ...]:
            return round_to_blocks(weight.load(), layout.bits, layout.size)

        return (
            Tensor(name, "uint8", (rows, count, of_block), lambda: rounded()[0]),
            Tensor(f"{name}.scales", "float32", (rows, count), lambda: rounded()[1]),
            Tensor(f"{name}.zero_points", "uint8", (rows, of_row), lambda: rounded()[2]),
        )


def _layer_norm(graph: GraphBuilder, x: str, norm: Norm) -> str:
    """Emit LayerNormalization of x; of the same x only once."""
    name = f"{norm.name}.of_{x}"
    if not any(name in node.output for node in graph.nodes):
        norm.apply(graph, x, name)
    return name


@dataclass
class _Graph(DecoderGraph):
    """GPTJX over rows of one length, [batch, sequence]."""

    token_axis = 1

    def build(self) -> GraphBuilder:
        x, table = self._blocks()
        self.weight_format.tied_head(
            self.graph, self._norm("transformer.ln_f").apply(self.graph, x, "ln_f"), table, "logits"
        )
        self.graph.output("logits", "float32", ["batch", "n", self.config.vocab_size])
        for i in range(self.config.n_layer):
            for part in ("key", "value"):
                self.graph.output(f"present.{i}.{part}", self.kv_cache_dtype, self._cache_shape("present"))
        return self.graph

    def _declare_inputs(self) -> None:
        graph = self.graph
        graph.input("input_ids", "int64", ["batch", "sequence"])
        graph.input("position_ids", "int64", ["batch", "sequence"])
        graph.input("logits_index", "int64", ["n"])
        for i in range(self.config.n_layer):
            for part in ("key", "value"):
                graph.input(f"past_key_values.{i}.{part}", self.kv_cache_dtype, self._cache_shape("past"))

    def _cache_shape(self, length: str) -> list[int | str]:
        return ["batch", self.config.n_heads, length, self.config.head_dim]


@dataclass
class _InPlace(_Graph):
    def _declare_inputs(self) -> None:
        super()._declare_inputs()
        self.graph.input("seqlens_k", "int32", ["batch"])
        self.graph.input("total_sequence_length", "int32", [1])

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


@dataclass
class _Concatenating(_Graph):
    """present holds the new positions only. The scores are those of the past and of the new positions side by side, so
    that the graph copies nothing behind the past."""

    def _declare_inputs(self) -> None:
        super()._declare_inputs()
        graph = self.graph
        graph.input("attention_mask", "float32", ["batch", 1, "sequence", "past_and_sequence"])
        scale = np.array(self.config.head_dim**-0.5, np.float32)
        self._scale = graph.tensor(Tensor("attention.scale", "float32", (), lambda: scale))
        self._apart = graph.integers("attention.heads", [0, 0, self.config.n_heads, self.config.head_dim])
        self._joined = graph.integers("attention.joined", [0, 0, self.config.n_embd])  # 0 keeps a dimension
        past = graph.node("Shape", ["past_key_values.0.key"], "attention.past_length", start=2, end=3)
        new = graph.node("Shape", ["input_ids"], "attention.new_length", start=1, end=2)
        self._lengths = graph.node("Concat", [past, new], "attention.lengths", axis=0)

    def _attention(self, i: int, qkv: str) -> str:
        graph, name = self.graph, f"h.{i}.attn"
        packed = [f"{name}.{part}_packed" for part in "qkv"]
        graph.node("Split", [qkv], f"{name}.split", outputs=packed, axis=-1, num_outputs=3)
        query, key, value = (self._heads(part, part.removesuffix("_packed")) for part in packed)
        query = graph.node("Mul", [query, self._scale], f"{name}.q_scaled")
        keys, values = self._past_and_new(i, "key", key), self._past_and_new(i, "value", value)
        scores = []
        for part in keys:
            transposed = graph.node("Transpose", [part], f"{part}.transposed", perm=[0, 1, 3, 2])
            scores.append(graph.node("MatMul", [query, transposed], f"{part}.scores"))
        both = graph.node("Concat", scores, f"{name}.scores", axis=-1)
        masked = graph.node("Add", [both, "attention_mask"], f"{name}.masked_scores")
        weights = graph.node("Softmax", [masked], f"{name}.weights", axis=-1)
        halves = [f"{name}.past_weights", f"{name}.new_weights"]
        graph.node("Split", [weights, self._lengths], f"{name}.split_weights", outputs=halves, axis=-1)
        sums = [
            graph.node("MatMul", [half, part], f"{half}.sum")
            for half, part in zip(halves, values, strict=True)
        ]
        rows = graph.node(
            "Transpose", [graph.node("Add", sums, f"{name}.heads")], f"{name}.rows", perm=[0, 2, 1, 3]
        )
        return graph.node("Reshape", [rows, self._joined], name)

    def _heads(self, packed: str, name: str) -> str:
        """[batch, sequence, n_embd] -> [batch, heads, sequence, head_dim]"""
        split = self.graph.node("Reshape", [packed, self._apart], f"{name}_heads")
        return self.graph.node("Transpose", [split], name, perm=[0, 2, 1, 3])

    def _past_and_new(self, i: int, part: str, new: str) -> list[str]:
        """Past and new keys or values as float32; the new ones as the cache rounds them."""
        names = [f"past_key_values.{i}.{part}", f"present.{i}.{part}"]
        self.graph.cast(new, self.kv_cache_dtype, names[1])
        return [self.graph.cast(name, "float32", f"{name}.float32") for name in names]
