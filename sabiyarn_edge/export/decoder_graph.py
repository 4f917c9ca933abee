"""decoder.onnx, the fast path: causal, no mask input, keys and values appended in place.

Per block, with `a` the output of ln_1 and `x` the residual stream:

    SkipLayerNormalization   x = x + mlp of the block before;  a = ln_1(x)
    c_attn -> GroupQueryAttention -> c_proj                    (Cast around it when the cache is float16)
    LayerNormalization       j(a)
    Add                      x + j(a)
    SkipLayerNormalization   x = x + j(a) + c_proj;  h = ln_2(x)
    c_fc -> Gelu -> c_proj
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..config import GPTJXConfig
from .graph_builder import MICROSOFT, GraphBuilder
from .kv_scales import KvScales
from .tensors import Array, Tensor
from .weight_format import Matrix, WeightFormat

__all__ = ["LAYER_NORM_EPSILON", "DecoderGraph", "Parameters", "build_decoder"]

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
    """Build the graph of DESIGN: inputs, outputs and their shapes are the contract with the runtime.

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
        table = self.parameters.matrix("transformer.wte.weight")
        token = self.weight_format.tied_embedding(self.graph, "input_ids", table, "wte")
        positions = self.parameters.matrix("transformer.wpe.weight")
        position = self.weight_format.embedding(self.graph, "position_ids", positions, "wpe")
        x, branch, branch_bias = token, position, None
        for i in range(self.config.n_layer):
            x, branch, branch_bias = self._block(i, x, branch, branch_bias)
        final, _ = self._add_and_norm(x, branch, branch_bias, "transformer.ln_f", last=True)
        self._head(final, table)
        self.graph.output("logits", "float32", ["batch", "n", self.config.vocab_size])
        for i in range(self.config.n_layer):
            for side in ("key", "value"):
                self.graph.output(f"present.{i}.{side}", self.kv_cache_dtype, self._present_shape())
        self._declare_hidden_states(final)
        return self.graph

    def _declare_hidden_states(self, final: str) -> None:
        # A value that every step computes anyway: it costs nothing where it is not asked for.
        assert final == HIDDEN_STATES
        self.graph.output(final, "float32", ["batch", "n", self.config.n_embd])

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

    def _block(
        self, i: int, x: str, branch: str, branch_bias: Tensor | None
    ) -> tuple[str, str, Tensor | None]:
        """Emit block i.

        Args:
            x, branch, branch_bias: the residual stream is their sum, which this block's first node makes.

        Returns:
            The same three for the next block.
        """
        graph, block = self.graph, f"transformer.h.{i}"
        a, x = self._add_and_norm(x, branch, branch_bias, f"{block}.ln_1")
        attended = self._attention(i, self._linear(f"{block}.attn.c_attn", a))
        if i == self.config.n_layer - 1:
            # From here on only the positions whose logits are wanted are computed.
            attended, a, x = (
                graph.node("Gather", [value, "logits_index"], f"{value}.wanted", axis=1)
                for value in (attended, a, x)
            )
        projected = self._linear(f"{block}.attn.c_proj", attended, with_bias=False)
        j = self._layer_norm(a, f"{block}.j")
        x = graph.node("Add", [x, j], f"h.{i}.add_j")
        attention_bias = self.parameters.optional_vector(f"{block}.attn.c_proj.bias")
        h, x = self._add_and_norm(x, projected, attention_bias, f"{block}.ln_2")
        h = graph.node("Gelu", [self._linear(f"{block}.mlp.c_fc", h)], f"h.{i}.mlp.gelu")
        branch = self._linear(f"{block}.mlp.c_proj", h, with_bias=False)
        return x, branch, self.parameters.optional_vector(f"{block}.mlp.c_proj.bias")

    def _linear(self, name: str, x: str, *, with_bias: bool = True) -> str:
        """A linear layer; its bias, if it has one, is left to the next residual addition if not with_bias."""
        bias = self.parameters.optional_vector(f"{name}.bias") if with_bias else None
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

    def _layer_norm(self, x: str, name: str) -> str:
        return self.graph.node(
            "LayerNormalization",
            [x, *self._norm_parameters(name)],
            name.removeprefix("transformer."),
            axis=-1,
            epsilon=LAYER_NORM_EPSILON,
        )

    def _add_and_norm(
        self, x: str, branch: str, branch_bias: Tensor | None, name: str, *, last: bool = False
    ) -> tuple[str, str]:
        """x + branch + branch_bias and its layer norm in one node.

        Returns:
            The normalized sum, and the sum (left out if `last`).
        """
        weight, *beta = self._norm_parameters(name)
        short = name.removeprefix("transformer.")
        inputs = [x, branch, weight, *(beta or [""]), self.graph.tensor(branch_bias) if branch_bias else ""]
        while not inputs[-1]:
            inputs.pop()
        outputs = [HIDDEN_STATES] if last else [short, "", "", f"{short}.sum"]
        self.graph.node(
            "SkipLayerNormalization",
            inputs,
            short,
            outputs=outputs,
            domain=MICROSOFT,
            epsilon=LAYER_NORM_EPSILON,
        )
        return outputs[0], outputs[-1]

    def _norm_parameters(self, name: str) -> list[str]:
        """Scale and, if the checkpoint has one, shift: released ones have j.bias although bias is false."""
        bias = self.parameters.optional_vector(f"{name}.bias")
        scale = self.parameters.vector(f"{name}.weight")
        return [self.graph.tensor(t) for t in (scale, bias) if t is not None]
