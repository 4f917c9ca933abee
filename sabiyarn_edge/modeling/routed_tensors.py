"""What a checkpoint's tensors say of its experts, held against its config: in words, where they disagree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..model_folder.config import CONFIG_FILE, GPTJXConfig

__all__ = ["check_gates", "misfits_of_experts"]

GATE, FC_BANK, PROJ_BANK = "gate.weight", "fc_bank", "proj_bank"


def misfits_of_experts(tensors: Mapping[str, Tensor], config: GPTJXConfig) -> list[str]:
    """Where gates, banks and dense MLPs are not those that the config describes; empty if all fit.

    Args:
        tensors: by their canonical names. What is missing altogether is left to the caller.
    """
    return [line for layer in range(config.n_layer) for line in _misfits(tensors, config, layer)]


def check_gates(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Raise CheckpointError if a gate holds NaN or infinite numbers: no expert could be chosen by its scores."""
    for name, tensor in tensors.items():
        if name.endswith(f".mlp.{GATE}") and not bool(torch.isfinite(tensor.float()).all()):
            raise CheckpointError(
                f"{folder}: {name} holds NaN or infinite numbers, so the router could choose no expert. The checkpoint "
                "is damaged, or its training diverged: use an earlier one."
            )


def _misfits(tensors: Mapping[str, Tensor], config: GPTJXConfig, layer: int) -> Iterator[str]:
    prefix = f"transformer.h.{layer}.mlp."
    found = {
        name: tuple(tensors[prefix + name].shape)
        for name in (GATE, FC_BANK, PROJ_BANK)
        if prefix + name in tensors
    }
    dense = f"{prefix}c_fc.weight" in tensors
    if not config.use_moe:
        if found:
            yield (
                f"layer {layer} has experts ({prefix}{next(iter(found))}), but use_moe is false or absent in "
                f"{CONFIG_FILE}: set it to true."
            )
        return
    if dense:
        yield f"layer {layer} has a dense MLP ({prefix}c_fc.weight), but use_moe is true in {CONFIG_FILE}."
        return
    experts, width, hidden = config.experts_of(layer), config.n_embd, config.mlp_width
    allowed = {
        GATE: ((experts, width), "experts, n_embd"),
        FC_BANK: ((experts, width, hidden), "experts, n_embd, moe_dim"),
        PROJ_BANK: ((experts, hidden, width), "experts, moe_dim, n_embd"),
    }
    counts = {shape[0] for shape in found.values() if shape}
    if len(found) == len(allowed) and len(counts) == 1 and counts != {experts}:
        yield (
            f"layer {layer} has {experts} experts by {_source(config, layer)} in {CONFIG_FILE}, but its tensors have "
            f"{counts.pop()} ({prefix}{FC_BANK} is {list(found[FC_BANK])})."
        )
        return
    for name, shape in found.items():
        wanted, axes = allowed[name]
        if shape != wanted:
            order = " Its axes are in another order." if shape in permutations(wanted) else ""
            yield f"{prefix}{name} is {list(shape)}, must be {list(wanted)} ({axes}).{order}"


def _source(config: GPTJXConfig, layer: int) -> str:
    return "expert_per_layer" if str(layer) in (config.expert_per_layer or {}) else "num_experts"
