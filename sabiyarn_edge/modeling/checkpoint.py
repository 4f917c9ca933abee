"""Checkpoints into and out of GPTJXForCausalLM.

Names in files vary, masks and KV caches were saved as if they were weights (see buffers), and `j.bias` is there
although the config says bias=False. Each is dealt with once; what is left must fit exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import CheckpointError, InvalidInputError, ModelFolderError
from ..model_folder.config import CONFIG_FILE, GPTJXConfig, read_json_object
from ..options.generation_config import GENERATION_CONFIG_FILE, GenerationConfig
from .architecture import check_architecture, check_is_config
from .buffers import canonical_name, is_buffer
from .hub import locate_checkpoint
from .network import GPTJXNetwork
from .routed_tensors import check_gates, misfits_of_experts
from .tensor_files import first_ten, read_tensors, write_files

__all__ = ["is_token_id", "load_pretrained", "save_pretrained"]

WTE = "transformer.wte.weight"
WPE = "transformer.wpe.weight"
LM_HEAD = "lm_head.weight"
CHANGEABLE = ("use_kv_cache", "kv_cache_dtype", "max_batch_size", "dropout")
"""Config values that say how to run a model, not what it is."""
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")

Model = TypeVar("Model", bound=GPTJXNetwork)


def load_pretrained(
    model_class: type[Model],
    source: str | Path,
    *,
    revision: str | None,
    settings: Mapping[str, Any],
) -> Model:
    """What GPTJXForCausalLM.from_pretrained() does; see there."""
    unknown = sorted(settings.keys() - set(CHANGEABLE))
    if unknown:
        raise InvalidInputError(
            f"{', '.join(unknown)} cannot be set when a checkpoint is loaded. "
            f"These can: {', '.join(CHANGEABLE)}."
        )
    folder = locate_checkpoint(source, revision=revision)
    values, own_config = _read_config(folder)
    config = dataclasses.replace(own_config, **settings)
    generation_config = _read_generation_config(folder, values, config.vocab_size)
    stored = read_tensors(folder, skip=lambda name, shape: is_buffer(canonical_name(name), shape, config))
    tensors = _canonical(stored, folder)
    with torch.device("meta"):  # no memory and no random numbers for weights that the file replaces
        model = model_class(config, j_bias=any(name.endswith(".j.bias") for name in tensors))
    _check_fit(tensors, model.state_dict(), config, folder)
    check_gates(tensors, folder)
    parameters = {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    model.load_state_dict(parameters, assign=True)
    model.checkpoint_dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    model.requires_grad_(True)
    model.generation_config = generation_config
    model.tie_weights()
    return model.eval()


def save_pretrained(model: GPTJXNetwork, folder: str | Path) -> None:
    """What GPTJXForCausalLM.save_pretrained() does; see there."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    del tensors[LM_HEAD]
    tensors = _as_stored(tensors, model.checkpoint_dtypes)
    routed = model.config.use_moe
    config = {
        "architectures": ["GPTJXMoEForCausalLM" if routed else "GPTJXForCausalLM"],
        "model_type": "sabiyarn" if routed else "gptjx",
        "torch_dtype": str(tensors[WTE].dtype).removeprefix("torch."),
        "tie_word_embeddings": True,
        **model.config.to_dict(),
    }
    settings = {CONFIG_FILE: config, GENERATION_CONFIG_FILE: model.generation_config.to_dict()}
    write_files(Path(folder), settings, tensors)


def _as_stored(tensors: dict[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """In the types of the files that the model came from, if these hold every value as it is now."""
    stored = {name: tensor.to(dtypes.get(name, tensor.dtype)) for name, tensor in tensors.items()}
    unchanged = all(torch.equal(stored[name].to(tensor.dtype), tensor) for name, tensor in tensors.items())
    return stored if unchanged else tensors


def _read_config(folder: Path) -> tuple[dict[str, Any], GPTJXConfig]:
    """All keys of config.json, and what they say."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no {CONFIG_FILE}, so the shape of the model is unknown.")
    try:
        values = read_json_object(path)
        check_is_config(values)
        config = GPTJXConfig.from_dict(values)
        check_architecture(values, config)
    except InvalidInputError as error:
        message = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise CheckpointError(message) from error
    return values, config


def _read_generation_config(folder: Path, config: Mapping[str, Any], vocab_size: int) -> GenerationConfig:
    """generation_config.json, completed with the special token ids that only config.json has."""
    try:
        found = GenerationConfig.load(folder)
    except ModelFolderError as error:
        raise CheckpointError(str(error)) from error
    special = {
        name: config[name]
        for name in SPECIAL_TOKENS
        if getattr(found, name) is None
        and is_token_id(config.get(name), vocab_size, many=name == "eos_token_id")
    }
    return found.updated(**special)


def is_token_id(value: object, vocab_size: int, *, many: bool) -> bool:
    """Whether `value` is an id of the vocabulary or, where `many` allows it, a list of them.

    Configs also hold null, -1 and the ids of other models.
    """
    if many and isinstance(value, list):
        return bool(value) and all(is_token_id(item, vocab_size, many=False) for item in value)
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocab_size


def _canonical(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Rename to transformer.* and lm_head.weight, and fill in whichever of the two tied weights is absent."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        clean = canonical_name(name)
        if clean in renamed:
            raise CheckpointError(f"{folder} holds {clean} twice, once as {name}. Only one can be right.")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise CheckpointError(
                f"{folder}: {name} is a tensor of {tensor.dtype} and {tensor.layout} on {tensor.device}, but must be a "
                "dense one of floats (torch.strided), with data. Save it anew with to_dense() or dequantize()."
            )
        renamed[clean] = tensor
    if LM_HEAD in renamed and WTE in renamed:
        narrow, wide = sorted((renamed[LM_HEAD], renamed[WTE]), key=lambda tensor: tensor.element_size())
        if narrow.shape == wide.shape:
            # One of them may have been saved in another type, rounded.
            if not torch.allclose(narrow, wide.to(narrow.dtype), rtol=0, atol=0, equal_nan=True):
                raise CheckpointError(
                    f"{folder}: {LM_HEAD} differs from {WTE}, but GPTJX uses one matrix for both. "
                    "This checkpoint is damaged or of another architecture."
                )
            renamed[LM_HEAD] = renamed[WTE] = wide
    elif LM_HEAD in renamed:
        renamed[WTE] = renamed[LM_HEAD]
    elif WTE in renamed:
        renamed[LM_HEAD] = renamed[WTE]
    return renamed


def _check_fit(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], config: GPTJXConfig, folder: Path
) -> None:
    """Raise one CheckpointError for all tensors that are missing, unexpected or wrong."""
    of_experts = misfits_of_experts(tensors, config)
    if of_experts:
        raise CheckpointError(
            f"the tensors in {folder} do not fit its {CONFIG_FILE}.\n  " + "\n  ".join(first_ten(of_experts))
        )
    missing = [name for name in expected if name not in tensors]
    unexpected = [f"{name} {list(tensor.shape)}" for name, tensor in tensors.items() if name not in expected]
    wrong: list[str] = []
    for name, tensor in tensors.items():
        if name not in expected:
            continue
        if tensor.shape != expected[name].shape:
            line = f"{name} is {list(tensor.shape)}, must be {list(expected[name].shape)}"
            if name == WPE and tensor.dim() == 2:
                line += f": it has {tensor.shape[0]} positions, but block_size is {config.block_size}"
            wrong.append(line)
        elif not tensor.is_floating_point():
            wrong.append(
                f"{name} is {str(tensor.dtype).removeprefix('torch.')}, must be a floating-point type"
            )
    sections = {"Missing": missing, "Unexpected": unexpected, "Of wrong shape or type": wrong}
    listed = [f"{title}:\n  " + "\n  ".join(first_ten(lines)) for title, lines in sections.items() if lines]
    if listed:
        raise CheckpointError(
            f"the tensors in {folder} do not fit its {CONFIG_FILE}.\n" + "\n".join(listed) + "\n"
            f"Check {CONFIG_FILE}: n_layer is {config.n_layer}, n_embd {config.n_embd}, "
            f"vocab_size {config.vocab_size}, block_size {config.block_size}, bias {config.bias}."
        )
