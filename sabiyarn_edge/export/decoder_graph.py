"""decoder.onnx: one run takes any mixture of tokens of any rows; keys and values are appended in place.

Inputs:
    input_ids, position_ids         int64 [tokens]: the run's tokens, one segment after another
    segments                        int64 [segments, 5]: (row, num_tokens, total, oldest, mask_at) of each segment
    window                          int64 [2]: (positions that a token sees at most, first positions never evicted)
    attention_mask                  float32 [m], empty without masks: a segment's block [num_tokens, total] begins at
                                    mask_at, additive, over the row's positions; mask_at is -1 for causal segments,
                                    and -1 - n where the row's first n slots are those of the segment before it
    logits_index                    int64 [n]: the tokens whose logits are wanted
    past_key_values.{i}.key         [rows, n_heads, capacity / 16, head_dim, 16]: woven by 16 positions
    past_key_values.{i}.value       [rows, n_heads, capacity, head_dim]

csrc/operators/attention_operator.hpp says what the segments' numbers mean. Per block, with `x` the residual stream
(csrc/operators/ has our operators):

    Linear                   qkv = c_attn(ln_1(x))
    CachedAttention          keys and values appended to the past in place
    ResidualNorm             r = x + j(ln_1(x))
    Linear                   x = r + c_proj(attention)
    Linear                   h = gelu(c_fc(ln_2(x)))
    Linear                   x = x + c_proj(h)

In a mixture of experts, one operator takes the place of the last two:

    RoutedMlp                x = x + the chosen experts of ln_2(x)

Every matrix, and the table of the embedding and the head, is stored as tiles of eight outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..engine.operators import DOMAIN
from ..model_folder.config import GPTJXConfig
from .graph_builder import GraphBuilder
from .kv_scales import KvScales
from .norms import Norm
from .tensors import Array, Tensor
from .tiles import tiled_floats, tiled_floats_shape
from .weight_format import Matrix, WeightFormat

__all__ = ["DecoderGraph", "Parameters", "build_decoder"]

SEGMENT_FIELDS = 5
KEY_TILE = 16
"""Positions whose keys are woven into one tile, as csrc/core/kernels/attention.hpp reads them."""

HIDDEN_STATES = "hidden_states"
"""Output of decoder.onnx: what the head makes logits of, float32 [n, n_embd]."""


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

    def gate(self, name: str) -> Tensor:
        """A router's scores are float32 products whatever the weights are: [experts, width] as tiles."""
        experts, width = self._shapes[name]
        shape = tiled_floats_shape(experts, width, 4)
        return Tensor(name, "uint8", shape, lambda: tiled_floats(self._read(name)))

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
    """Writes decoder.onnx."""

    token_axis: ClassVar[int] = 0
    """Of the residual stream: [tokens, width]."""

    parameters: Parameters
    config: GPTJXConfig
    weight_format: WeightFormat
    kv_cache_dtype: str
    kv_scales: Sequence[KvScales] = ()

    def build(self) -> GraphBuilder:
        x, table = self._blocks()
        final = self._norm("transformer.ln_f").apply(self.graph, x, HIDDEN_STATES)
        self.weight_format.tied_head(self.graph, final, table, "logits")
        self.graph.output("logits", "float32", ["n", self.config.vocab_size])
        # A value that every step computes anyway: it costs nothing where it is not asked for.
        self.graph.output(HIDDEN_STATES, "float32", ["n", self.config.n_embd])
        return self.graph

    def _blocks(self) -> tuple[str, Matrix]:
        """Begin the graph: from its inputs to what the last block gives, and the table of tokens."""
        self.graph = GraphBuilder()
        self._declare_inputs()
        table = self.parameters.matrix("transformer.wte.weight")
        token = self.weight_format.embedding(self.graph, "input_ids", table, "wte")
        positions = self.parameters.matrix("transformer.wpe.weight")
        position = self.weight_format.embedding(self.graph, "position_ids", positions, "wpe")
        x = self.graph.node("Add", [token, position], "embedded")
        for i in range(self.config.n_layer):
            x = self._block(i, x)
        return x, table

    def _declare_inputs(self) -> None:
        graph = self.graph
        heads, head_dim = self.config.n_heads, self.config.head_dim
        graph.input("input_ids", "int64", ["tokens"])
        graph.input("position_ids", "int64", ["tokens"])
        graph.input("segments", "int64", ["segments", SEGMENT_FIELDS])
        graph.input("window", "int64", [2])
        graph.input("attention_mask", "float32", ["mask_values"])
        graph.input("logits_index", "int64", ["n"])
        for i in range(self.config.n_layer):
            key_shape: list[int | str] = ["rows", heads, "key_tiles", head_dim, KEY_TILE]
            graph.input(f"past_key_values.{i}.key", self.kv_cache_dtype, key_shape)
            graph.input(
                f"past_key_values.{i}.value", self.kv_cache_dtype, ["rows", heads, "capacity", head_dim]
            )

    def _block(self, i: int, x: str) -> str:
        """Emit block i, from the residual stream to the residual stream."""
        graph, block = self.graph, f"transformer.h.{i}"
        ln_1 = self._norm(f"{block}.ln_1")
        attended = self._attention(i, self._linear(f"{block}.attn.c_attn", x, norm=ln_1))
        if i == self.config.n_layer - 1:
            # From here on only the positions whose logits are wanted are computed.
            attended, x = (
                graph.node("Gather", [value, "logits_index"], f"h.{i}.wanted_{name}", axis=self.token_axis)
                for name, value in (("attn", attended), ("x", x))
            )
        r = self.weight_format.residual_norm(graph, x, ln_1, self._norm(f"{block}.j"), f"h.{i}.x_and_j")
        x = self._linear(f"{block}.attn.c_proj", attended, residual=r)
        ln_2, experts = self._norm(f"{block}.ln_2"), range(self.config.experts_of(i))
        if experts:
            return self.weight_format.routed_mlp(
                graph,
                x,
                self.parameters.gate(f"{block}.mlp.gate.weight"),
                [self.parameters.matrix(f"{block}.mlp.fc_bank.{expert}") for expert in experts],
                [self.parameters.matrix(f"{block}.mlp.proj_bank.{expert}") for expert in experts],
                f"h.{i}.mlp",
                chosen=self.config.num_experts_per_tok,
                norm=ln_2,
                residual=x,
            )
        h = self._linear(f"{block}.mlp.c_fc", x, norm=ln_2, gelu=True)
        return self._linear(f"{block}.mlp.c_proj", h, residual=x)

    def _linear(
        self, name: str, x: str, *, norm: Norm | None = None, gelu: bool = False, residual: str | None = None
    ) -> str:
        bias = self.parameters.optional_vector(f"{name}.bias")
        weight = self.parameters.matrix(f"{name}.weight")
        return self.weight_format.linear(
            self.graph,
            x,
            weight,
            bias,
            name.removeprefix("transformer."),
            norm=norm,
            gelu=gelu,
            residual=residual,
        )

    def _attention(self, i: int, qkv: str) -> str:
        """Attention of the new tokens, whose keys and values are appended to the cache.

        Args:
            qkv: float32 [tokens, 3 * n_embd], queries, keys and values side by side as in c_attn.

        Returns:
            float32 [tokens, n_embd]
        """
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        scales = self._scales(i) if self.kv_cache_dtype == "int8" else ()
        inputs = [qkv, *past, "segments", "window", "attention_mask", *scales]
        return self.graph.node("CachedAttention", inputs, f"h.{i}.attn", domain=DOMAIN)

    def _scales(self, i: int) -> tuple[str, str]:
        """Scales of keys and of values, float32 [1, heads, 1, head_dim]."""
        graph, name, scales = self.graph, f"h.{i}.attn", self.kv_scales[i]
        key = Tensor(f"{name}.key_scale", "float32", scales.key.shape, lambda: scales.key)
        value = Tensor(f"{name}.value_scale", "float32", scales.value.shape, lambda: scales.value)
        return graph.tensor(key), graph.tensor(value)

    def _norm(self, name: str) -> Norm:
        scale, bias = (
            self.parameters.vector(f"{name}.weight"),
            self.parameters.optional_vector(f"{name}.bias"),
        )
        return Norm(name.removeprefix("transformer."), scale, bias)
