"""The layers of GPTJX: attention, MLP and the block with its extra layer norm `j`, dense or routed."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..model_folder.config import GPTJXConfig
from .kv_cache import KvCache
from .routed_mlp import RoutedMLP

__all__ = ["MLP", "Attend", "Block", "SelfAttention", "make_layer_norm"]

LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Attend:
    """How the tokens of one forward pass see each other and the past, and what it gathers; the same for all layers."""

    mask: Tensor | None = None
    """bool (True = may attend) or additive float, broadcastable to [rows, 1, T, S]; None: see `causal`."""
    causal: bool = True
    """Without a mask: True, a square causal pass; False, every token sees all S keys (one new token)."""
    cache: KvCache | None = None
    """Where keys and values are kept; None: nowhere."""
    balance: list[Tensor] | None = None
    """Gets the load-balancing term of each routed layer; None: it is not wanted."""


def make_layer_norm(config: GPTJXConfig, *, bias: bool) -> nn.LayerNorm:
    return nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPS, bias=bias)


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(head_dim)) v over n_heads heads, from one fused projection."""

    def __init__(self, config: GPTJXConfig, layer: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)
        self._dropout = config.dropout
        self._num_heads = config.n_heads
        self._layer = layer

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        rows, count, width = x.shape
        qkv = self.c_attn(x).view(rows, count, 3, self._num_heads, width // self._num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [rows, n_heads, T, head_dim]
        if attend.cache is not None:
            key, value = attend.cache.append(self._layer, key, value)  # S = past + T positions
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attend.mask,
            dropout_p=self._dropout if self.training else 0.0,
            is_causal=attend.mask is None and attend.causal,
        )
        out: Tensor = self.resid_dropout(self.c_proj(mixed.transpose(1, 2).reshape(rows, count, width)))
        return out


class MLP(nn.Module):
    """Linear to 4 * n_embd, exact (erf) GELU, Linear back."""

    def __init__(self, config: GPTJXConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, balance: list[Tensor] | None = None) -> Tensor:
        """Every token meets the same weights, so there is nothing to balance."""
        out: Tensor = self.dropout(self.c_proj(F.gelu(self.c_fc(x))))
        return out


class Block(nn.Module):
    """a = ln_1(x); x = x + attn(a) + j(a); x = x + mlp(ln_2(x))."""

    def __init__(self, config: GPTJXConfig, layer: int, *, j_bias: bool) -> None:
        super().__init__()
        self.ln_1 = make_layer_norm(config, bias=config.bias)
        self.j = make_layer_norm(config, bias=j_bias)
        self.attn = SelfAttention(config, layer)
        self.ln_2 = make_layer_norm(config, bias=config.bias)
        experts = config.experts_of(layer)
        self.mlp = RoutedMLP(config, experts) if experts else MLP(config)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        a = self.ln_1(x)
        x = x + self.attn(a, attend) + self.j(a)
        out: Tensor = x + self.mlp(self.ln_2(x), attend.balance)
        return out
