"""The portable graph: GPTJX in standard ONNX operators, with past inputs as other runtimes know them.

    input_ids, position_ids        int64    [batch, sequence]
    attention_mask                 float32  [batch, 1, sequence, past + sequence], added to the scores of attention
    past_key_values.{i}.key/.value float32  [batch, heads, past, head_dim]
    logits                         float32  [batch, sequence, vocab_size]
    present.{i}.key/.value         float32  [batch, heads, past + sequence, head_dim], the past of the next run

The mask is the only source of causality, so that any pattern of attention can be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np

from ..model_folder.config import GPTJXConfig
from .decoder_graph import Parameters
from .graph_builder import GraphBuilder
from .tensors import Array, Tensor

__all__ = ["IR_VERSION", "OPSET", "build_portable_graph"]

OPSET = 17
"""Of the standard operators: the first with LayerNormalization, so the oldest that says a norm in one node."""
IR_VERSION = 8
"""The file format that came with this opset."""
LAYER_NORM_EPSILON = 1e-5
"""As in GPTJX, and torch's default."""


def build_portable_graph(parameters: Parameters, config: GPTJXConfig, dtype: str) -> GraphBuilder:
    """Build the graph.

    Args:
        dtype: how matrices are stored, "float32" or "float16". Arithmetic is float32 either way.
    """
    return _PortableGraph(parameters, config, dtype).build()


@dataclass
class _PortableGraph:
    parameters: Parameters
    config: GPTJXConfig
    dtype: str
    graph: GraphBuilder = field(default_factory=GraphBuilder)

    def build(self) -> GraphBuilder:
        graph, config = self.graph, self.config
        graph.input("input_ids", "int64", ["batch", "sequence"])
        graph.input("position_ids", "int64", ["batch", "sequence"])
        graph.input("attention_mask", "float32", ["batch", 1, "sequence", "past_and_sequence"])
        graph.output("logits", "float32", ["batch", "sequence", config.vocab_size])
        for name in (f"{i}.{part}" for i in range(config.n_layer) for part in ("key", "value")):
            graph.input(f"past_key_values.{name}", "float32", self._cache_shape("past"))
            graph.output(f"present.{name}", "float32", self._cache_shape("past_and_sequence"))

        # The softmax of a query that attends to nothing (padding) would be NaN, and 0 * NaN would carry it from padding
        # to text. The lowest finite float32 in place of -inf gives such a query equal weights.
        lowest = self._number("lowest", float(np.finfo(np.float32).min))
        mask = graph.node("Clip", ["attention_mask", lowest], "mask")
        x = graph.node(
            "Add", [self._embedding("wte", "input_ids"), self._embedding("wpe", "position_ids")], "embedded"
        )
        for i in range(config.n_layer):
            x = self._block(i, x, mask)
        self._head(self._norm("ln_f", x))
        return graph

    def _cache_shape(self, length: str) -> Sequence[int | str]:
        return ["batch", self.config.n_heads, length, self.config.head_dim]

    def _block(self, i: int, x: str, mask: str) -> str:
        """x + attn(ln_1(x)) + j(ln_1(x)), then + mlp(ln_2(x)): [batch, sequence, n_embd]."""
        graph, block = self.graph, f"h.{i}"
        a = self._norm(f"{block}.ln_1", x)
        x = graph.node("Add", [x, self._attention(i, a, mask)], f"{block}.x_and_attn")
        x = graph.node("Add", [x, self._norm(f"{block}.j", a)], f"{block}.x_and_j")
        b = self._norm(f"{block}.ln_2", x)
        if self.config.use_moe:
            return graph.node("Add", [x, self._experts(i, b)], f"{block}.x")
        h = self._gelu(self._linear(f"{block}.mlp.c_fc", b))
        return graph.node("Add", [x, self._linear(f"{block}.mlp.c_proj", h)], f"{block}.x")

    def _experts(self, i: int, b: str) -> str:
        """Each expert computes the tokens that are routed to it, no others: [batch, sequence, n_embd].

        TopK gives of equal scores the lower index first, as GPTJX does.
        """
        graph, name, count = self.graph, f"h.{i}.mlp", self.config.experts_of(i)
        tokens = graph.node(
            "Reshape", [b, graph.integers("rows", [-1, self.config.n_embd])], f"{name}.tokens"
        )
        # float32 whatever the matrices are: a rounded score may send a token elsewhere.
        gate = self._stored(f"transformer.{name}.gate.weight", transposed=True, dtype="float32")
        scores = graph.node("MatMul", [tokens, gate], f"{name}.scores")
        chosen = [f"{name}.best_scores", f"{name}.best"]
        k = graph.integers("experts_per_token", [self.config.num_experts_per_tok])
        graph.node("TopK", [scores, k], f"{name}.choice", outputs=chosen, axis=-1)
        weights = graph.node("Softmax", chosen[:1], f"{name}.best_weights", axis=-1)
        weights = graph.node(
            "ScatterElements", [self._zeros_like(scores), chosen[1], weights], f"{name}.weights", axis=-1
        )
        out = self._zeros_like(tokens)
        for expert in range(count):
            out = self._expert(name, expert, tokens, weights, out)
        return graph.node("Reshape", [out, graph.node("Shape", [b], f"{name}.shape")], name)

    def _expert(self, name: str, expert: int, tokens: str, weights: str, out: str) -> str:
        """Add to `out` what one expert makes of the tokens in whose row of `weights` it is not 0."""
        graph, part = self.graph, f"{name}.{expert}"
        column = graph.node("Gather", [weights, self._index(expert)], f"{part}.weights", axis=1)  # [tokens]
        nonzero = graph.node("NonZero", [column], f"{part}.nonzero")
        which = graph.node("Transpose", [nonzero], f"{part}.which", perm=[1, 0])  # [n, 1]
        rows = graph.node("GatherND", [tokens, which], f"{part}.tokens")  # [n, n_embd]
        fc, proj = (
            self._matrix(f"transformer.{name}.{bank}_bank.{expert}", transposed=True)
            for bank in ("fc", "proj")
        )
        h = self._gelu(graph.node("MatMul", [rows, fc], f"{part}.fc"))
        y = graph.node("MatMul", [h, proj], f"{part}.proj")
        kept = graph.node("GatherND", [column, which], f"{part}.weights_of_its_own")
        kept = graph.node("Unsqueeze", [kept, graph.integers("last_axis", [1])], f"{part}.weights_column")
        y = graph.node("Mul", [y, kept], f"{part}.weighted")
        return graph.node("ScatterND", [out, which, y], f"{part}.sum", reduction="add")

    def _zeros_like(self, value: str) -> str:
        shape = self.graph.node("Shape", [value], f"{value}.shape")
        return self.graph.node("ConstantOfShape", [shape], f"{value}.zeros")  # float32, its default

    def _index(self, number: int) -> str:
        return self.graph.tensor(Tensor(f"index_{number}", "int64", (), lambda: np.array(number, np.int64)))

    def _attention(self, i: int, a: str, mask: str) -> str:
        """c_proj(softmax(q k^T / sqrt(head_dim) + mask) v): [batch, sequence, n_embd]."""
        graph, name = self.graph, f"h.{i}.attn"
        packed = [f"{name}.{part}_packed" for part in "qkv"]
        graph.node("Split", [self._linear(f"{name}.c_attn", a)], f"{name}.split", outputs=packed, axis=-1)
        query, key, value = (self._split_heads(part, part.removesuffix("_packed")) for part in packed)
        keys, values = (
            graph.node("Concat", [f"past_key_values.{i}.{part}", new], f"present.{i}.{part}", axis=2)
            for part, new in (("key", key), ("value", value))
        )
        scale = self._number("attention_scale", 1 / sqrt(self.config.head_dim))
        query = graph.node("Mul", [query, scale], f"{name}.q_scaled")
        keys = graph.node("Transpose", [keys], f"{name}.keys_transposed", perm=[0, 1, 3, 2])
        scores = graph.node("MatMul", [query, keys], f"{name}.scores")
        masked = graph.node("Add", [scores, mask], f"{name}.masked_scores")
        weights = graph.node("Softmax", [masked], f"{name}.weights", axis=-1)
        heads = graph.node("MatMul", [weights, values], f"{name}.heads")
        rows = graph.node("Transpose", [heads], f"{name}.rows", perm=[0, 2, 1, 3])
        joined = graph.integers("joined_heads", [0, 0, self.config.n_embd])  # 0 keeps a dimension
        return self._linear(f"{name}.c_proj", graph.node("Reshape", [rows, joined], f"{name}.joined"))

    def _split_heads(self, packed: str, name: str) -> str:
        """[batch, sequence, n_embd] -> [batch, heads, sequence, head_dim]"""
        shape = self.graph.integers("split_heads", [0, 0, self.config.n_heads, self.config.head_dim])
        split = self.graph.node("Reshape", [packed, shape], f"{name}_split")
        return self.graph.node("Transpose", [split], name, perm=[0, 2, 1, 3])

    def _gelu(self, x: str) -> str:
        """x * (1 + erf(x / sqrt(2))) / 2, the exact GELU; the operator Gelu came with opset 20."""
        graph = self.graph
        scaled = graph.node("Div", [x, self._number("sqrt_2", sqrt(2))], f"{x}.scaled")
        erf = graph.node("Erf", [scaled], f"{x}.erf")
        shifted = graph.node("Add", [erf, self._number("one", 1.0)], f"{x}.erf_and_one")
        doubled = graph.node("Mul", [x, shifted], f"{x}.gelu_doubled")
        return graph.node("Mul", [doubled, self._number("half", 0.5)], f"{x}.gelu")

    def _linear(self, name: str, x: str) -> str:
        """x W^T + bias: [..., inputs] -> [..., outputs]."""
        graph = self.graph
        weight = self._matrix(f"transformer.{name}.weight", transposed=True)
        bias = self.parameters.optional_vector(f"transformer.{name}.bias")
        if bias is None:
            return graph.node("MatMul", [x, weight], name)
        product = graph.node("MatMul", [x, weight], f"{name}.product")
        return graph.node("Add", [product, graph.tensor(bias)], name)

    def _norm(self, name: str, x: str) -> str:
        scale = self.parameters.vector(f"transformer.{name}.weight")
        bias = self.parameters.optional_vector(f"transformer.{name}.bias")
        inputs = [x, *(self.graph.tensor(tensor) for tensor in (scale, bias) if tensor is not None)]
        return self.graph.node("LayerNormalization", inputs, name, axis=-1, epsilon=LAYER_NORM_EPSILON)

    def _embedding(self, name: str, ids: str) -> str:
        """int64 [batch, sequence] -> float32 [batch, sequence, n_embd]"""
        table = self._stored(f"transformer.{name}.weight", transposed=False)
        if self.dtype == "float32":
            return self.graph.node("Gather", [table, ids], name)
        return self.graph.cast(
            self.graph.node("Gather", [table, ids], f"{name}.{self.dtype}"), "float32", name
        )

    def _head(self, x: str) -> None:
        """x wte^T. Gemm reads the table of the embedding as it stands; MatMul would need a transposed copy of it."""
        graph, width, vocab_size = self.graph, self.config.n_embd, self.config.vocab_size
        rows = graph.node("Reshape", [x, graph.integers("rows", [-1, width])], "head_rows")
        table = self._matrix("transformer.wte.weight", transposed=False)
        logits = graph.node("Gemm", [rows, table], "logit_rows", transB=1)
        positions = graph.node("Shape", ["input_ids"], "positions")
        shape = graph.node(
            "Concat", [positions, graph.integers("vocab_size", [vocab_size])], "logits_shape", axis=0
        )
        graph.node("Reshape", [logits, shape], "logits")

    def _matrix(self, name: str, *, transposed: bool) -> str:
        """A matrix as float32."""
        stored = self._stored(name, transposed=transposed)
        return stored if self.dtype == "float32" else self.graph.cast(stored, "float32", f"{stored}.float32")

    def _stored(self, name: str, *, transposed: bool, dtype: str = "") -> str:
        matrix, dtype = self.parameters.matrix(name), dtype or self.dtype

        def load() -> Array:
            values = matrix.load()
            with np.errstate(over="ignore"):  # infinities are found, and named, when the tensor is written
                return np.ascontiguousarray(values.T if transposed else values, dtype=dtype)

        return self.graph.tensor(
            Tensor(name, dtype, matrix.shape[::-1] if transposed else matrix.shape, load)
        )

    def _number(self, name: str, value: float) -> str:
        return self.graph.tensor(Tensor(name, "float32", (), lambda: np.array(value, np.float32)))
