"""GPTJXMoE in torch, straight from the formulas: every expert computes every token, nothing is cached.

The oracle of token-for-token comparisons over many cases: float64, a batch of rows of one length at a time. It shares
no code with the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class EveryExpert:
    """
    Args:
        tensors: the checkpoint's, by their full names.
        shape: keys of its config.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], shape: Mapping[str, Any]) -> None:
        self.tensors = {
            name: torch.from_numpy(np.asarray(values, np.float64)) for name, values in tensors.items()
        }
        self.heads, self.layers, self.chosen = (
            shape["n_heads"],
            shape["n_layer"],
            shape["num_experts_per_tok"],
        )

    def logits(self, ids: Tensor) -> Tensor:
        """[rows, T] -> [rows, T, vocab]"""
        wte, wpe = self.tensors["transformer.wte.weight"], self.tensors["transformer.wpe.weight"]
        x = wte[ids] + wpe[: ids.shape[1]]
        for layer in range(self.layers):
            block = f"transformer.h.{layer}."
            a = self.norm(block + "ln_1", x)
            x = x + self.attention(block + "attn.", a) + self.norm(block + "j", a)
            x = x + self.mixture(block + "mlp.", self.norm(block + "ln_2", x))
        return self.norm("transformer.ln_f", x) @ wte.T

    def greedy(self, ids: Tensor, count: int) -> Tensor:
        """`count` tokens behind each row [rows, T], every one from a forward pass over all before it."""
        for _ in range(count):
            ids = torch.cat([ids, self.logits(ids)[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
        return ids

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(
            x, x.shape[-1:], self.tensors[name + ".weight"], self.tensors.get(name + ".bias"), 1e-5
        )

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[name + ".weight"], self.tensors.get(name + ".bias"))

    def attention(self, name: str, a: Tensor) -> Tensor:
        rows, count, width = a.shape
        q, k, v = (
            part.view(rows, count, self.heads, -1).transpose(1, 2)
            for part in self.linear(name + "c_attn", a).split(width, dim=-1)
        )
        scores = q @ k.mT / (width // self.heads) ** 0.5
        ahead = torch.ones(count, count, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(ahead, -torch.inf).softmax(dim=-1) @ v
        return self.linear(name + "c_proj", mixed.transpose(1, 2).reshape(rows, count, width))

    def mixture(self, name: str, b: Tensor) -> Tensor:
        scores = b @ self.tensors[name + "gate.weight"].T
        least = scores.topk(self.chosen, dim=-1).values[..., -1:]
        weights = scores.masked_fill(scores < least, -torch.inf).softmax(dim=-1)
        hidden = F.gelu(torch.einsum("rtd,edh->rteh", b, self.tensors[name + "fc_bank"]))
        return torch.einsum("rteh,ehd,rte->rtd", hidden, self.tensors[name + "proj_bank"], weights)
