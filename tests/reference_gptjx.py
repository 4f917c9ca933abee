"""A slow GPTJX, dense or with experts, in NumPy, straight from the formulas: the oracle for the torch model and for
exported graphs.

It shares no code with the package. Every token attends in a plain loop over rows and heads; all arithmetic is
float64 unless told otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def layer_norm(x: Array, weight: Array, bias: Array | None) -> Array:
    """Ba et al. 2016 (arXiv:1607.06450), over the last axis, eps 1e-5."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    out = (x - mean) / np.sqrt(variance + 1e-5) * weight
    return out if bias is None else out + bias


def gelu(x: Array) -> Array:
    """The exact GELU, x * Phi(x) (arXiv:1606.08415)."""
    return (0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))).astype(x.dtype)


class ReferenceGPTJX:
    """GPTJX over a dict of checkpoint tensors (full names, [out, in] matrices).

    Args:
        tensors: name -> array.
        n_layer, n_heads: as in the config.
        num_experts_per_tok: experts of a token, in layers that have a router.
        dtype: the dtype of all arithmetic.
        kv_scales: [n_heads, head_dim] of each layer's keys and values: these are then rounded to integers times their
            scale, from -128 to 127, as an int8 cache does.
        rounds_inputs: what matrices are multiplied with is rounded to 8 bits first, block by block, as products with
            matrices of few bits do.
    """

    def __init__(
        self,
        tensors: Mapping[str, ArrayLike],
        *,
        n_layer: int,
        n_heads: int,
        num_experts_per_tok: int = 2,
        dtype: type[np.floating] = np.float64,
        kv_scales: Sequence[tuple[Array, Array]] | None = None,
        rounds_inputs: bool = False,
    ) -> None:
        self._tensors = {name: np.asarray(value, dtype=dtype) for name, value in tensors.items()}
        self._n_layer = n_layer
        self._n_heads = n_heads
        self._num_experts_per_tok = num_experts_per_tok
        self._dtype = dtype
        self._kv_scales = kv_scales
        self._rounds_inputs = rounds_inputs

    def logits(
        self,
        ids: ArrayLike,
        *,
        positions: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        kv_dtype: type[np.floating] | None = None,
    ) -> Array:
        """Logits [T, vocab] of one row of ids [T].

        Args:
            positions: [T]; default 0 ... T - 1.
            mask: additive [T, T]; default causal.
            kv_dtype: keys and values are rounded to it, as a cache would do.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        count = len(tokens)
        where = np.arange(count) if positions is None else np.asarray(positions, dtype=np.int64)
        if mask is None:
            mask = np.triu(np.full((count, count), -np.inf), k=1)
        additive = np.asarray(mask, dtype=self._dtype)

        wte, wpe = self._tensors["transformer.wte.weight"], self._tensors["transformer.wpe.weight"]
        x = wte[tokens] + wpe[where]
        for layer in range(self._n_layer):
            name = f"transformer.h.{layer}"
            a = self._norm(f"{name}.ln_1", x)
            x = x + self._attention(f"{name}.attn", a, additive, kv_dtype) + self._norm(f"{name}.j", a)
            x = x + self._mlp(f"{name}.mlp", self._norm(f"{name}.ln_2", x))
        return self._input(self._norm("transformer.ln_f", x)) @ wte.T

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """ids and `count` more, each the argmax (lowest id on ties) of a full forward pass over all before
        it."""
        out = list(ids)
        for _ in range(count):
            out.append(int(np.argmax(self.logits(out)[-1])))
        return out

    def _norm(self, name: str, x: Array) -> Array:
        return layer_norm(x, self._tensors[f"{name}.weight"], self._tensors.get(f"{name}.bias"))

    def _mlp(self, name: str, b: Array) -> Array:
        if f"{name}.gate.weight" not in self._tensors:
            return self._linear(f"{name}.c_proj", gelu(self._linear(f"{name}.c_fc", b)))
        # Every expert computes every token; what a token does not want counts 0.
        scores = b @ self._tensors[f"{name}.gate.weight"].T
        out = np.zeros_like(b)
        for expert, weights in enumerate(self._weights_of_experts(scores).T):
            hidden = gelu(self._input(b) @ self._tensors[f"{name}.fc_bank"][expert])
            out += weights[:, None] * (self._input(hidden) @ self._tensors[f"{name}.proj_bank"][expert])
        return out

    def _weights_of_experts(self, scores: Array) -> Array:
        """[T, experts]: softmax over the largest scores of each token, 0 for the others; ties to the lower index."""
        weights = np.zeros_like(scores)
        for token, row in enumerate(scores):
            best = sorted(range(len(row)), key=lambda expert: (-row[expert], expert))[
                : self._num_experts_per_tok
            ]
            chances = [math.exp(row[expert] - row[best[0]]) for expert in best]
            for expert, chance in zip(best, chances, strict=True):
                weights[token, expert] = chance / sum(chances)
        return weights

    def _linear(self, name: str, x: Array) -> Array:
        out = self._input(x) @ self._tensors[f"{name}.weight"].T
        bias = self._tensors.get(f"{name}.bias")
        return out if bias is None else out + bias

    def _input(self, x: Array) -> Array:
        if not self._rounds_inputs:
            return x
        width = x.shape[-1]
        block = next(size for size in (128, 64, 32, 16) if width % size == 0)
        blocks = x.reshape(len(x), width // block, block)
        largest = np.abs(blocks).max(axis=-1, keepdims=True)
        largest[largest == 0] = 1
        return (np.rint(blocks * 127 / largest) * largest / 127).reshape(x.shape)

    def _attention(self, name: str, a: Array, mask: Array, kv_dtype: type[np.floating] | None) -> Array:
        count, width = a.shape
        head_dim = width // self._n_heads
        qkv = self._linear(
            f"{name}.c_attn", a
        )  # [T, 3 * n_embd]: all queries, then all keys, then all values
        mixed = np.empty((count, width), dtype=self._dtype)
        for head in range(self._n_heads):
            query, key, value = (
                qkv[:, part * width + head * head_dim : part * width + (head + 1) * head_dim]
                for part in range(3)
            )
            if kv_dtype is not None:
                key, value = (side.astype(kv_dtype).astype(self._dtype) for side in (key, value))
            if self._kv_scales is not None:
                layer = int(name.split(".")[2])  # transformer.h.{layer}.attn
                scales = (side[head].astype(np.float64) for side in self._kv_scales[layer])
                key, value = (
                    np.clip(np.rint(side / scale), -128, 127) * scale
                    for side, scale in zip((key, value), scales, strict=True)
                )
            scores = query @ key.T / math.sqrt(head_dim) + mask
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed[:, head * head_dim : (head + 1) * head_dim] = (
                weights / weights.sum(axis=-1, keepdims=True) @ value
            )
        return self._linear(f"{name}.c_proj", mixed)
