"""decoder.onnx, the fast path: causal, no mask input, keys and values appended in place.

Per block, with `x` the residual stream:

    LayerNormalization       a = ln_1(x)
    c_attn -> GroupQueryAttention -> c_proj                    (Cast around it when the cache is float16)
    LayerNormalization       j(a)
    Add, Add                 x = x + j(a) + c_proj
    LayerNormalization       h = ln_2(x)
    c_fc -> Gelu -> c_proj
    Add                      x = x + c_proj

onnxruntime 1.32 has SkipLayerNormalization for an addition and the norm behind it; it takes 2.5 to 5 times as long as
these two on x86-64, and as long as them on ARM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..config import GPTJXConfig
from .graph_builder import MICROSOFT, GraphBuilder
from .kv_scales import KvScales
from .tensors import Array, Tensor
from .weight_format import Matrix, WeightFormat

__all__ = ["DecoderGraph", "Parameters", "build_decoder"]

HIDDEN_STATES = "hidden_states"
"""Output of decoder.onnx: what the head makes logits of, [batch, n, n_embd]."""

LAYER_NORM_EPSILON = 1e-5
"""As in GPTJX, and torch's default."""


class Parameters:
    """The checkpoint's parameters by their names, handed out as tensors that are read only when written."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Array]) -> None:
        """
        Args:
            shapes: of every parameter that the checkpoint holds.
            read: gives the float32 values of a parameter.
        """
        self._shapes = shapes
        self._read = read

    def matrix(self, name: str) -> Matrix:
        rows, columns = self._shapes[name]
        return Matrix(name, (rows, columns), lambda: self._read(name))

    def vector(self, name: str) -> Tensor:
        return Tensor(name, "float32", self._shapes[name], lambda: self._read(name))

    def optional_vector(self, name: str) -> Tensor | None:
        return self.vector(name) if name in self._shapes else None


def build_decoder(
    parameters: Parameters,
    config: GPTJXConfig,
    weight_format: WeightFormat,
    kv_cache_dtype: str,
    kv_scales: Sequence[KvScales] = (),
) -> GraphBuilder:
    """Build the graph; its inputs, outputs and their shapes are the contract with the runtime.

    Args:
        kv_cache_dtype: "float16" or "float32", element type of past_key_values and of the attention; or "int8", then
            attention computes in float32 on keys and values that went through 8 bits, the new ones too.
        kv_scales: of an int8 cache, one per layer.
    """
    return DecoderGraph(parameters, config, weight_format, kv_cache_dtype, kv_scales).build()


@dataclass
class DecoderGraph:
    """Writes decoder.onnx. Where decoder_masked.onnx differs, MaskedDecoderGraph overrides a method."""

    parameters: Parameters
    config: GPTJXConfig
    weight_format: WeightFormat
    kv_cache_dtype: str
    kv_scales: Sequence[KvScales] = ()

    def build(self) -> GraphBuilder:
        self.graph = GraphBuilder()
        self._declare_inputs()
        self.graph.positions_of = "input_ids"
        table = self.parameters.matrix("transformer.wte.weight")
        token = self.weight_format.tied_embedding(self.graph, "input_ids", table, "wte")
        positions = self.parameters.matrix("transformer.wpe.weight")
        position = self.weight_format.embedding(self.graph, "position_ids", positions, "wpe")
        x = self.graph.node("Add", [token, position], "embedded")
        for i in range(self.config.n_layer):
            x = self._block(i, x)
        final = self._layer_norm(x, "transformer.ln_f", HIDDEN_STATES)
        self._head(final, table)
        self.graph.output("logits", "float32", ["batch", "n", self.config.vocab_size])
        for i in range(self.config.n_layer):
            for side in ("key", "value"):
                self.graph.output(f"present.{i}.{side}", self.kv_cache_dtype, self._present_shape())
        self._declare_hidden_states()
        return self.graph

    def _declare_hidden_states(self) -> None:
        # A value that every step computes anyway: it costs nothing where it is not asked for.
        self.graph.output(HIDDEN_STATES, "float32", ["batch", "n", self.config.n_embd])

    def _head(self, final: str, table: Matrix) -> None:
        self.weight_format.tied_head(self.graph, final, table, "logits")

    def _declare_inputs(self) -> None:
        graph = self.graph
        graph.input("input_ids", "int64", ["batch", "sequence"])
        graph.input("position_ids", "int64", ["batch", "sequence"])
        graph.input("seqlens_k", "int32", ["batch"])
        graph.input("total_sequence_length", "int32", [1])
        graph.input("logits_index", "int64", ["n"])
        for i in range(self.config.n_layer):
            for side in ("key", "value"):
                graph.input(f"past_key_values.{i}.{side}", self.kv_cache_dtype, self._cache_shape())

    def _cache_shape(self) -> list[int | str]:
        return ["batch", self.config.n_heads, "capacity", self.config.head_dim]

    def _present_shape(self) -> list[int | str]:
        return self._cache_shape()  # bound to the same memory as the past

    def _block(self, i: int, x: str) -> str:
        """Emit block i, from the residual stream to the residual stream."""
        graph, block = self.graph, f"transformer.h.{i}"
        a = self._layer_norm(x, f"{block}.ln_1")
        attended = self._attention(i, self._linear(f"{block}.attn.c_attn", a))
        if i == self.config.n_layer - 1:
            # From here on only the positions whose logits are wanted are computed.
            attended, a, x = (
                graph.node("Gather", [value, "logits_index"], f"h.{i}.wanted_{name}", axis=1)
                for name, value in (("attn", attended), ("ln_1", a), ("x", x))
            )
            graph.positions_of = x
        x = graph.node("Add", [x, self._layer_norm(a, f"{block}.j")], f"h.{i}.add_j")
        x = graph.node("Add", [x, self._linear(f"{block}.attn.c_proj", attended)], f"h.{i}.add_attn")
        h = self._linear(f"{block}.mlp.c_fc", self._layer_norm(x, f"{block}.ln_2"))
        h = self._linear(f"{block}.mlp.c_proj", graph.node("Gelu", [h], f"h.{i}.mlp.gelu"))
        return graph.node("Add", [x, h], f"h.{i}.add_mlp")

    def _linear(self, name: str, x: str) -> str:
        bias = self.parameters.optional_vector(f"{name}.bias")
        weight = self.parameters.matrix(f"{name}.weight")
        return self.weight_format.linear(self.graph, x, weight, bias, name.removeprefix("transformer."))

    def _attention(self, i: int, qkv: str) -> str:
        """Causal attention of the new positions, whose keys and values are appended to the cache.

        Args:
            qkv: float32 [batch, sequence, 3 * n_embd], queries, keys and values side by side as in c_attn.

        Returns:
            float32 [batch, sequence, n_embd]
        """
        graph, name, half = self.graph, f"h.{i}.attn", self.kv_cache_dtype == "float16"
        scales, attributes = self._quantization(i)
        if half:
            qkv = graph.cast(qkv, self.kv_cache_dtype, f"{name}.qkv_{self.kv_cache_dtype}")
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        attended = graph.node(
            "GroupQueryAttention",
            [qkv, "", "", *past, "seqlens_k", "total_sequence_length", *scales],
            name,
            outputs=[name, f"present.{i}.key", f"present.{i}.value"],
            domain=MICROSOFT,
            num_heads=self.config.n_heads,
            kv_num_heads=self.config.n_heads,
            **attributes,
        )
        return graph.cast(attended, "float32", f"{name}.float32") if half else attended

    def _quantization(self, i: int) -> tuple[list[str], dict[str, int | str]]:
        """What GroupQueryAttention needs beyond a float cache: its last inputs, and attributes."""
        if self.kv_cache_dtype != "int8":
            return [], {}
        unused = [""] * 5  # cos_cache, sin_cache, position_ids, attention_bias, head_sink
        kind = {f"{side}_quant_type": "PER_CHANNEL" for side in "kv"}
        return [*unused, *self._scales(i)], {**kind, "kv_cache_bit_width": 8}

    def _scales(self, i: int) -> tuple[str, str]:
        """Of keys and of values, float32 [1, heads, 1, head_dim]."""
        graph, name, scales = self.graph, f"h.{i}.attn", self.kv_scales[i]
        key = Tensor(f"{name}.key_scale", "float32", scales.key.shape, lambda: scales.key)
        value = Tensor(f"{name}.value_scale", "float32", scales.value.shape, lambda: scales.value)
        return graph.tensor(key), graph.tensor(value)

    def _layer_norm(self, x: str, name: str, output: str | None = None) -> str:
        # Released checkpoints have j.bias although their other norms have none.
        scale, bias = (
            self.parameters.vector(f"{name}.weight"),
            self.parameters.optional_vector(f"{name}.bias"),
        )
        return self.graph.node(
            "LayerNormalization",
            [x, *(self.graph.tensor(tensor) for tensor in (scale, bias) if tensor is not None)],
            output or name.removeprefix("transformer."),
            axis=-1,
            epsilon=LAYER_NORM_EPSILON,
        )
