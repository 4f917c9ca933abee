"""Tiny torch models of several shapes, each with its NumPy oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sabiyarn_edge.modeling import GPTJXConfig, GPTJXForCausalLM
from tests.data.make_tiny_checkpoint import EXPERTS, SHAPE, random_tensors, tensor_shape
from tests.reference_gptjx import ReferenceGPTJX

SHAPES: dict[str, dict[str, Any]] = {
    "released": {},  # no bias anywhere but in j, as SabiYarn-125M
    "no-bias": {"j_bias": False},
    "bias": {"bias": True},
    "odd": {"n_heads": 3, "n_embd": 21, "n_layer": 3, "vocab_size": 53, "block_size": 50},
    "odd-bias": {"n_heads": 5, "n_embd": 35, "n_layer": 1, "vocab_size": 101, "bias": True},
    "one-head": {"n_heads": 1, "n_embd": 8, "vocab_size": 7, "block_size": 33},
    "routed": {"use_moe": True},
    "routed-odd": {
        **{
            "use_moe": True,
            "n_layer": 3,
            "n_heads": 3,
            "n_embd": 21,
            "moe_dim": 37,
            "num_experts_per_tok": 3,
        },
        **{"num_experts": 5, "expert_per_layer": {"0": 3, "2": 8}, "bias": True},
    },
    "one-expert": {"use_moe": True, "num_experts": 1, "num_experts_per_tok": 1},
}

FLOAT32_BOUND = 5e-5
"""Largest difference of float32 logits (standard deviation about 2.5) from float64 ones; 5e-6 is typical."""


def tiny_model(seed: int = 0, j_bias: bool = True, **settings: Any) -> GPTJXForCausalLM:
    """A model with random_tensors() as weights, in evaluation mode; `settings` are config values."""
    shape = {**SHAPE, **tensor_shape(settings)}
    tensors = random_tensors(seed=seed, j_bias=j_bias, **shape)
    config = GPTJXConfig.from_dict({**shape, **settings})
    model = GPTJXForCausalLM(config, j_bias=j_bias or config.bias)
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state)
    return model.eval()


def tiny_oracle(seed: int = 0, j_bias: bool = True, **settings: Any) -> ReferenceGPTJX:
    """The oracle with the same weights as tiny_model()."""
    shape = {**SHAPE, **tensor_shape(settings)}
    tensors = random_tensors(seed=seed, j_bias=j_bias, **shape)
    chosen = {**EXPERTS, **shape}["num_experts_per_tok"]
    return ReferenceGPTJX(
        tensors, n_layer=shape["n_layer"], n_heads=shape["n_heads"], num_experts_per_tok=chosen
    )


def random_ids(model: GPTJXForCausalLM, *shape: int, seed: int = 1) -> torch.Tensor:
    """Random token ids, int64."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, model.config.vocab_size, shape))


def logits_of(model: GPTJXForCausalLM, ids: torch.Tensor, **options: Any) -> NDArray[np.float32]:
    """Logits of forward() as an array."""
    with torch.no_grad():
        logits: NDArray[np.float32] = model(ids, **options).logits.numpy()
    return logits
