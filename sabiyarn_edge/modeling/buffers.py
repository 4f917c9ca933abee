"""What tensor names of a checkpoint mean: training's prefixes taken away, buffers told from parameters."""

from __future__ import annotations

import re

from ..model_folder.config import GPTJXConfig

__all__ = ["canonical_name", "is_buffer"]

_PREFIXES = re.compile(r"^((module|model)\.)+")
"""Of data-parallel training, and of trainers that hold the model as an attribute."""

_LEAF = re.compile(r"(transformer\.)?(h\.\d+\.(attn\.)?)?(?P<leaf>\w+)")
"""Directly in the model, a block or its attention, where no parameter is: those lie one module deeper."""


def canonical_name(name: str) -> str:
    """The name without the prefixes of torch.compile (at any depth), data-parallel training and trainers, and with
    `transformer.`."""
    name = _PREFIXES.sub("", name.replace("_orig_mod.", ""))
    return f"transformer.{name}" if name.split(".")[0] in ("wte", "wpe", "h", "ln_f") else name


def is_buffer(name: str, shape: tuple[int, ...], config: GPTJXConfig) -> bool:
    """Whether name and shape are those of a mask or a KV cache that training saved beside the parameters.

    Masks are (n, n), (1, n, n) or (1, 1, n, n) under any name; `masked_bias` is one number; `cache_k` and `cache_v`
    are (batch, n_heads, positions, head_dim).

    Args:
        name: as canonical_name() gives it.
    """
    match = _LEAF.fullmatch(name)
    if match is None:
        return False
    if match["leaf"] == "masked_bias":
        return shape in ((), (1,))
    if match["leaf"] in ("cache_k", "cache_v"):
        return len(shape) == 4 and (shape[1], shape[3]) == (config.n_heads, config.head_dim)
    return 2 <= len(shape) <= 4 and shape[-1] == shape[-2] and set(shape[:-2]) <= {1}
