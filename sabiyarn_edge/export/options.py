"""Checks an export's options and the model's shape before anything is read or written at length."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from ..errors import ExportError, InvalidInputError, shown
from ..model_folder.config import EXPORTED_KV_CACHE_DTYPES, GPTJXConfig
from .weight_formats import WeightOptions, check_weight_options

__all__ = ["MOST_EXPERTS", "check_options", "check_space", "exported_config"]

HEAD_DIM_STEP = 8
"""Floats of a vector: our operators read keys, values and weights eight at a time."""

MOST_EXPERTS = 1024
"""Of a layer: kMostExperts of csrc/core/kernels/routed_mlp.hpp."""

MIB = 1024 * 1024


def check_options(
    weights: WeightOptions, kv_cache_dtype: str, calibration: Path | None, max_length: int | None
) -> None:
    """Raise InvalidInputError for an option that no checkpoint allows."""
    check_weight_options(weights)
    if kv_cache_dtype not in EXPORTED_KV_CACHE_DTYPES:
        allowed = ", ".join(EXPORTED_KV_CACHE_DTYPES)
        raise InvalidInputError(f"kv_cache_dtype is {shown(kv_cache_dtype)}; it must be one of {allowed}.")
    looked_at = weights.calibrated or weights.chooses_kept or kv_cache_dtype == "int8"
    if calibration is not None and not looked_at:
        raise InvalidInputError(
            f"a calibration text ({calibration}) was given, but nothing looks at one: that do int4 weights that are "
            "rounded by gptq or that --keep-int8 says nothing of (--dtype int4), and an int8 KV cache "
            "(--kv-cache-dtype int8). Leave it out."
        )
    if max_length is not None and (type(max_length) is not int or max_length < 2):
        raise InvalidInputError(
            f"max_length is {shown(max_length)}; it must be an integer of at least 2 (a token and the next one)."
        )


def exported_config(config: GPTJXConfig, max_length: int | None) -> GPTJXConfig:
    """The config of the model folder: the checkpoint's, with at most max_length positions.

    Raises:
        ExportError: max_length is more than there are, or the shape does not suit onnxruntime.
    """
    if max_length is not None and max_length > config.block_size:
        raise ExportError(
            f"max_length is {max_length}, but block_size is {config.block_size}: the checkpoint has learned "
            f"that many positions and no more. Give at most {config.block_size}, or leave max_length out."
        )
    if config.block_size < 2:
        raise ExportError(
            f"this checkpoint has {config.block_size} position, which leaves none for a next token. Take another one."
        )
    if config.head_dim % HEAD_DIM_STEP:
        raise ExportError(
            f"this checkpoint's heads are {config.head_dim} wide (n_embd {config.n_embd} / n_heads "
            f"{config.n_heads}), and the operator CachedAttention needs a multiple of "
            f"{HEAD_DIM_STEP}. It can be run with sabiyarn_edge.modeling, but not exported."
        )
    if config.mlp_width % HEAD_DIM_STEP:
        raise ExportError(
            f"moe_dim is {config.mlp_width}, and the operator RoutedMlp needs a multiple of {HEAD_DIM_STEP}. The "
            "checkpoint can be run with sabiyarn_edge.modeling, but not exported."
        )
    for layer in range(config.n_layer):
        if config.experts_of(layer) > MOST_EXPERTS:
            raise ExportError(
                f"layer {layer} has {config.experts_of(layer)} experts, and the operator RoutedMlp takes at most "
                f"{MOST_EXPERTS}. Name those that stay with --experts, or run the checkpoint with "
                "sabiyarn_edge.modeling, which takes any number."
            )
    return config if max_length is None else dataclasses.replace(config, block_size=max_length)


def check_space(out: Path, needed: int) -> None:
    """Raise ExportError, with both numbers, if OUT's disk has no room for so many bytes."""
    parent = next(folder for folder in out.resolve().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise ExportError(
            f"{out} needs {needed / MIB:.1f} MiB, but {free / MIB:.1f} MiB are free on its disk ({parent}). "
            "Free some space, or choose an OUT elsewhere."
        )
