"""A mixture of experts in place of a block's MLP: each token is computed by k experts, which a router chooses."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model_folder.config import GPTJXConfig

__all__ = ["RoutedMLP"]

ROUTER_NOISE = 0.1
"""Standard deviation of what training adds to the router's scores, so that every expert is tried; as the authors do."""


class RoutedMLP(nn.Module):
    """sum over the chosen experts e of weight[e] * (gelu(x @ fc_bank[e]) @ proj_bank[e]).

    The chosen ones are the k with the largest scores gate(x), of equal ones those with the lower index; their weights
    are the softmax over their k scores. Banks multiply from the right, unlike a Linear's weight, and have no bias.
    """

    def __init__(self, config: GPTJXConfig, experts: int) -> None:
        super().__init__()
        width, hidden = config.n_embd, config.mlp_width
        self.gate = nn.Linear(width, experts, bias=False)
        self.fc_bank = nn.Parameter(torch.empty(experts, width, hidden))
        self.proj_bank = nn.Parameter(torch.empty(experts, hidden, width))
        self.dropout = nn.Dropout(config.dropout)
        self._chosen = config.num_experts_per_tok
        self.watch: Callable[[str, int, Tensor], object] | None = None
        """Told the inputs [tokens, ...] of each expert's products: of "fc_bank" and "proj_bank", and which expert."""

    def forward(self, x: Tensor, balance: list[Tensor] | None = None) -> Tensor:
        """
        Args:
            x: [rows, T, n_embd]
            balance: gets the load-balancing term of this layer; None: it is not wanted.
        """
        tokens = x.flatten(0, -2)
        scores = F.linear(tokens.float(), self.gate.weight.float())  # [tokens, experts]
        if self.training and torch.is_grad_enabled():
            scores = scores + ROUTER_NOISE * torch.randn_like(scores)
        # A stable sort, since topk may take any of equal scores.
        best, order = scores.sort(dim=-1, descending=True, stable=True)
        chosen, weights = order[:, : self._chosen], best[:, : self._chosen].softmax(dim=-1).to(x.dtype)
        out = torch.zeros_like(tokens)
        for expert in range(len(self.fc_bank)):
            which, rank = (chosen == expert).nonzero(as_tuple=True)
            if len(which):
                computed = self._compute(expert, tokens[which])
                out = out.index_add(0, which, weights[which, rank, None] * computed)
        if balance is not None:
            balance.append(_balance(scores, chosen))
        dropped: Tensor = self.dropout(out.view_as(x))
        return dropped

    def _compute(self, expert: int, x: Tensor) -> Tensor:
        if self.watch is not None:
            self.watch("fc_bank", expert, x)
        hidden = F.gelu(x @ self.fc_bank[expert])
        if self.watch is not None:
            self.watch("proj_bank", expert, hidden)
        return hidden @ self.proj_bank[expert]

    def keep_experts(self, kept: list[int]) -> None:
        """Drop all other experts, with their rows of the gate; `kept` becomes the order of those that stay."""
        for parameter in (self.gate.weight, self.fc_bank, self.proj_bank):
            parameter.data = parameter.data[kept].contiguous()
        self.gate.out_features = len(kept)


def _balance(scores: Tensor, chosen: Tensor) -> Tensor:
    """E * sum over experts of load * mean probability, where load is the share of tokens that chose the expert.

    It is least, namely k, when all experts get equally many tokens.
    Source: Fedus, Zoph, Shazeer, "Switch Transformers", 2021, https://arxiv.org/abs/2101.03961, equation 4, with k
    experts for each token.
    """
    experts = scores.shape[-1]
    load = F.one_hot(chosen, experts).sum(dim=1).float().mean(dim=0)
    return experts * (load * scores.softmax(dim=-1).mean(dim=0)).sum()
