"""decoder_masked.onnx: attention under the caller's mask, in standard ONNX operators (matrices of few bits in ours).

Inputs and outputs differ from decoder.onnx in three things: `attention_mask` (float32, added to the scores: 0 = may
attend, -inf = may not) stands in place of causality and lengths; the past may have any number of slots, and the mask
tells which of them are in use; `present` holds the new positions only, which the caller appends to the past.

    input_ids, position_ids        int64    [batch, sequence]
    logits_index                   int64    [n]: which of the new positions get logits
    attention_mask                 float32  [batch or 1, 1, sequence, past + sequence]
    past_key_values.{i}.key/.value          [batch, heads, past, head_dim], float16, float32 or int8
    logits                         float32  [batch, n, vocab]
    present.{i}.key/.value                  [batch, heads, sequence, head_dim], as the past

Attention in two parts, so that nothing is copied behind the past:

    q k_past^T | q k_new^T  -> + mask -> Softmax -> Split -> w_past v_past + w_new v_new

An int8 cache holds keys and values in units of their scales. These are constants, so they are not applied to the whole
past but to the queries before the products, and to the sums after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from ..model_folder.config import GPTJXConfig
from .decoder_graph import DecoderGraph, Parameters
from .graph_builder import GraphBuilder
from .kv_scales import KvScales
from .tensors import Tensor
from .weight_format import WeightFormat

__all__ = ["build_masked_decoder"]


def build_masked_decoder(
    parameters: Parameters,
    config: GPTJXConfig,
    weight_format: WeightFormat,
    kv_cache_dtype: str,
    kv_scales: Sequence[KvScales] = (),
) -> GraphBuilder:
    """Build the graph; its large tensors are those of decoder.onnx, by name, dtype and bytes.

    Args:
        kv_cache_dtype: "float16", "float32" or "int8", element type of past_key_values and present. Attention itself
            computes in float32, on new keys and values that are rounded to this type first: results then do not
            depend on how a prompt is cut into chunks.
        kv_scales: of an int8 cache, one per layer.
    """
    return _MaskedDecoderGraph(parameters, config, weight_format, kv_cache_dtype, kv_scales).build()


class _MaskedDecoderGraph(DecoderGraph):
    def _declare_inputs(self) -> None:
        graph = self.graph
        graph.input("input_ids", "int64", ["batch", "sequence"])
        graph.input("position_ids", "int64", ["batch", "sequence"])
        graph.input("logits_index", "int64", ["n"])
        graph.input("attention_mask", "float32", ["mask_batch", 1, "sequence", "past_and_sequence"])
        for i in range(self.config.n_layer):
            for side in ("key", "value"):
                graph.input(f"past_key_values.{i}.{side}", self.kv_cache_dtype, self._cache_shape())
        # Shared by all layers: the scale of the scores, how to tell heads apart and join them, and where to split.
        scale = np.array(1 / sqrt(self.config.head_dim), np.float32)
        self._scale = graph.tensor(Tensor("attention.scale", "float32", (), lambda: scale))
        heads = [0, 0, self.config.n_heads, self.config.head_dim]  # 0: as it was
        self._apart = graph.integers("attention.heads_apart", heads)
        self._joined = graph.integers("attention.heads_joined", [0, 0, self.config.n_embd])
        past = graph.node("Shape", ["past_key_values.0.key"], "attention.past_length", start=2, end=3)
        new = graph.node("Shape", ["input_ids"], "attention.new_length", start=1, end=2)
        self._parts = graph.node("Concat", [past, new], "attention.parts", axis=0)

    def _cache_shape(self) -> list[int | str]:
        return ["batch", self.config.n_heads, "past", self.config.head_dim]

    def _declare_other_outputs(self) -> None:
        shape: list[int | str] = ["batch", self.config.n_heads, "sequence", self.config.head_dim]
        for i in range(self.config.n_layer):
            for side in ("key", "value"):
                self.graph.output(f"present.{i}.{side}", self.kv_cache_dtype, shape)

    def _attention(self, i: int, qkv: str) -> str:
        graph, name = self.graph, f"h.{i}.attn"
        packed = [f"{name}.{part}_packed" for part in "qkv"]
        graph.node("Split", [qkv], f"{name}.split", outputs=packed, axis=-1, num_outputs=3)
        query, key, value = (self._heads_apart(part, part.removesuffix("_packed")) for part in packed)
        if self.kv_cache_dtype == "int8":
            key_scale, value_scale = self._scales(i)
            query = graph.node("Mul", [query, key_scale], f"{name}.q_in_key_units")
            key = self._quantized(key, key_scale)
            value = self._quantized(value, value_scale)
        query = graph.node("Mul", [query, self._scale], f"{name}.q_scaled")
        past_key, key = self._past_and_present(i, "key", key)
        past_value, value = self._past_and_present(i, "value", value)

        scores = [
            graph.node("MatMul", [query, self._transposed(side)], f"{name}.{part}_scores")
            for part, side in (("past", past_key), ("new", key))
        ]
        both = graph.node("Concat", scores, f"{name}.scores", axis=-1)
        masked = graph.node("Add", [both, "attention_mask"], f"{name}.masked_scores")
        weights = graph.node("Softmax", [masked], f"{name}.weights", axis=-1)
        halves = [f"{name}.past_weights", f"{name}.new_weights"]
        graph.node("Split", [weights, self._parts], f"{name}.split_weights", outputs=halves, axis=-1)
        mixed = [
            graph.node("MatMul", [half, side], f"{half}.mixed")
            for half, side in zip(halves, (past_value, value), strict=True)
        ]
        total = graph.node("Add", mixed, f"{name}.mixed")
        if self.kv_cache_dtype == "int8":
            total = graph.node("Mul", [total, value_scale], f"{name}.mixed_scaled")
        rows = graph.node("Transpose", [total], f"{name}.rows", perm=[0, 2, 1, 3])
        return graph.node("Reshape", [rows, self._joined], name)

    def _heads_apart(self, packed: str, name: str) -> str:
        """[batch, sequence, n_embd] -> [batch, heads, sequence, head_dim]"""
        apart = self.graph.node("Reshape", [packed, self._apart], f"{name}_heads")
        return self.graph.node("Transpose", [apart], name, perm=[0, 2, 1, 3])

    def _quantized(self, new: str, scale: str) -> str:
        """New keys or values in units of their scale, as CachedAttention makes them: times 1 / scale in float32, to the
        nearest integer (even on ties), clipped to 8 bits."""
        graph = self.graph
        one, low, high = (self._number(number) for number in (1.0, -128.0, 127.0))
        inverse = graph.node("Div", [one, scale], f"{scale}.inverse")  # of constants: computed once, at load
        units = graph.node("Mul", [new, inverse], f"{new}.units")
        whole = graph.node("Round", [units], f"{new}.whole")
        return graph.node("Clip", [whole, low, high], f"{new}.clipped")

    def _number(self, number: float) -> str:
        return self.graph.tensor(
            Tensor(f"number.{number:g}", "float32", (), lambda: np.array(number, np.float32))
        )

    def _past_and_present(self, i: int, side: str, new: str) -> tuple[str, str]:
        """Store the new keys or values as the output present, and give past and new ones as float32."""
        graph, past, present = self.graph, f"past_key_values.{i}.{side}", f"present.{i}.{side}"
        if self.kv_cache_dtype == "float32":
            graph.node("Identity", [new], present)
            return past, new
        graph.cast(new, self.kv_cache_dtype, present)
        return graph.cast(past, "float32", f"{past}.float32"), graph.cast(
            present, "float32", f"{present}.float32"
        )

    def _transposed(self, keys: str) -> str:
        """onnxruntime folds this into the product."""
        return self.graph.node("Transpose", [keys], f"{keys}.transposed", perm=[0, 1, 3, 2])
