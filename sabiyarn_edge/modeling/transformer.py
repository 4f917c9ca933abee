"""The stack of blocks between token ids and hidden states, and how fresh weights are drawn."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ..model_folder.config import GPTJXConfig
from .blocks import Attend, Block, make_layer_norm

__all__ = ["GPTJXTransformer", "initialize_weights"]


class GPTJXTransformer(nn.Module):
    """Embeddings, blocks and the final layer norm; its attribute names are the checkpoint's."""

    def __init__(self, config: GPTJXConfig, *, j_bias: bool) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer, j_bias=j_bias) for layer in range(config.n_layer))
        self.ln_f = make_layer_norm(config, bias=config.bias)

    def forward(self, input_ids: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Hidden states after ln_f, [rows, T, n_embd], of input_ids [rows, T] at position_ids [1|rows, T]."""
        x = self.drop(self.wte(input_ids) + self.wpe(position_ids))
        for block in self.h:
            x = block(x, attend)
        out: Tensor = self.ln_f(x)
        return out


def initialize_weights(model: nn.Module, config: GPTJXConfig) -> None:
    """GPT-2's initialization: N(0, 0.02); projections into the residual stream N(0, 0.02 / sqrt(2 * n_layer)).

    Biases become 0; layer norms keep torch's ones. On the meta device there is nothing to draw.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            return
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() > 1:
            into_residual = name.endswith(("c_proj.weight", "proj_bank"))
            scale = 1 / math.sqrt(2 * config.n_layer) if into_residual else 1.0
            nn.init.normal_(parameter, std=0.02 * scale)
