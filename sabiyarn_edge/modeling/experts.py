"""Which experts of a mixture stay: read from a text or a file, and checked against the model's config."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, shown
from ..model_folder.config import GPTJXConfig, read_json_object

__all__ = ["read_kept_experts", "without_experts"]

OTHERS = "*"
"""Stands for every layer that is not named."""

_FORM = (
    'Name layers and the experts that stay, as in "0:0,1;*:0,1,2" (* is every other layer), or give a JSON file: '
    '{"0": [0, 1], "*": [0, 1, 2]}.'
)


def read_kept_experts(text: str, config: GPTJXConfig) -> dict[int, list[int]]:
    """The experts that stay in each layer that is named.

    Args:
        text: "LAYER:EXPERT,EXPERT;LAYER:..." with * for all other layers, or the path of a JSON file.

    Raises:
        InvalidInputError: it has another form, names no layer of the model, or names a layer twice.
    """
    named: dict[str | int, list[int]] = {}
    for name, experts in _read_file(Path(text)) if text.endswith(".json") else _read_text(text):
        layer: str | int = name
        if name != OTHERS:
            if not re.fullmatch(r"\d{1,9}", name) or int(name) >= config.n_layer:
                raise InvalidInputError(f"{text} names the layer {name!r}. {_layers(config)} {_FORM}")
            layer = int(name)  # 00 is layer 0 too
        if layer in named:
            raise InvalidInputError(
                f"experts: {shown(text)} names the layer {layer} twice. Name it once, with all experts that stay."
            )
        named[layer] = experts
    others = named.pop(OTHERS, None)
    kept = {layer: named.get(layer, others) for layer in range(config.n_layer)}
    return {layer: experts for layer, experts in kept.items() if experts is not None}


def without_experts(config: GPTJXConfig, kept: Mapping[int, Sequence[int]]) -> GPTJXConfig:
    """The config of a model that keeps these experts only. Raises InvalidInputError if it cannot."""
    if not config.use_moe:
        raise InvalidInputError("experts are to be removed, but this model has none: use_moe is false.")
    for layer, experts in kept.items():
        if not 0 <= layer < config.n_layer:
            raise InvalidInputError(f"experts of layer {layer} are to be removed. {_layers(config)}")
        count, least = config.experts_of(layer), config.num_experts_per_tok
        listed = ", ".join(map(str, experts)) or "none"
        if any(not 0 <= expert < count for expert in experts):
            raise InvalidInputError(
                f"layer {layer} is to keep the experts {listed}, but it has 0 to {count - 1} ({count} experts)."
            )
        if len(set(experts)) < len(experts):
            raise InvalidInputError(f"layer {layer} is to keep the experts {listed}: one is named twice.")
        if len(experts) < least:
            raise InvalidInputError(
                f"layer {layer} is to keep {len(experts)} of its {count} experts ({listed}), but each token is routed "
                f"to num_experts_per_tok = {least}. Keep at least {least}."
            )
    counts = {str(i): len(kept[i]) if i in kept else config.experts_of(i) for i in range(config.n_layer)}
    return dataclasses.replace(config, expert_per_layer=counts)


def _read_text(text: str) -> list[tuple[str, list[int]]]:
    named = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        layer, colon, experts = part.partition(":")
        numbers = [number.strip() for number in experts.split(",")]
        if not colon or not all(re.fullmatch(r"\d{1,9}", number) for number in numbers):
            raise InvalidInputError(f"experts: {shown(part)} cannot be read. {_FORM}")
        named.append((layer.strip(), [int(number) for number in numbers]))
    if not named:
        raise InvalidInputError(f"experts: {shown(text)} names no layer. {_FORM}")
    return named


def _read_file(path: Path) -> list[tuple[str, list[int]]]:
    objects: list[list[tuple[str, Any]]] = []  # the outermost one is complete last
    read_json_object(path, on_object=objects.append)
    for layer, experts in objects[-1]:
        if not isinstance(experts, list) or any(type(expert) is not int for expert in experts):
            raise InvalidInputError(f"{path}: layer {layer} has {experts!r}. {_FORM}")
    if not objects[-1]:
        raise InvalidInputError(f"{path} names no layer. {_FORM}")
    return objects[-1]


def _layers(config: GPTJXConfig) -> str:
    return f"n_layer is {config.n_layer}, so layers are 0 to {config.n_layer - 1}."
