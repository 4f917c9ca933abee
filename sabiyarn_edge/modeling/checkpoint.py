"""Checkpoints into and out of GPTJXForCausalLM.

Names in files vary (a torch.compile prefix, a missing `transformer.`), masks were saved as if they were
weights, and `j.bias` is there although the config says bias=False. Each is dealt with here, once; what is
left must fit exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import CheckpointError, InvalidInputError, ModelFolderError
from ..model_folder.config import CONFIG_FILE, GPTJXConfig, read_json_object
from ..options.generation_config import GENERATION_CONFIG_FILE, GenerationConfig
from .hub import locate_checkpoint
from .tensor_files import read_tensors, write_files

if TYPE_CHECKING:
    from .model import GPTJXForCausalLM

__all__ = ["load_pretrained", "save_pretrained"]

WTE = "transformer.wte.weight"
WPE = "transformer.wpe.weight"
LM_HEAD = "lm_head.weight"
CHANGEABLE = ("use_kv_cache", "kv_cache_dtype", "max_batch_size", "dropout")
"""Config values that say how to run a model, not what it is."""


def load_pretrained(
    model_class: type[GPTJXForCausalLM],
    source: str | Path,
    *,
    revision: str | None,
    settings: Mapping[str, Any],
) -> GPTJXForCausalLM:
    """What GPTJXForCausalLM.from_pretrained() does; see there."""
    unknown = sorted(settings.keys() - set(CHANGEABLE))
    if unknown:
        raise InvalidInputError(
            f"{', '.join(unknown)} cannot be set when a checkpoint is loaded. "
            f"These can: {', '.join(CHANGEABLE)}."
        )
    folder = locate_checkpoint(source, revision=revision)
    config = dataclasses.replace(_read_config(folder), **settings)
    try:
        generation_config = GenerationConfig.load(folder)
    except ModelFolderError as error:
        raise CheckpointError(str(error)) from error
    tensors = _canonical(read_tensors(folder, skip=_is_mask_buffer), folder)
    with torch.device("meta"):  # no memory and no random numbers for weights that the file replaces
        model = model_class(config, j_bias=any(name.endswith(".j.bias") for name in tensors))
    _check_fit(tensors, model.state_dict(), config, folder)
    parameters = {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    model.load_state_dict(parameters, assign=True)
    model.requires_grad_(True)
    model.generation_config = generation_config
    model.tie_weights()
    return model.eval()


def save_pretrained(model: GPTJXForCausalLM, folder: str | Path) -> None:
    """What GPTJXForCausalLM.save_pretrained() does; see there."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    del tensors[LM_HEAD]
    config = {
        "architectures": ["GPTJXForCausalLM"],
        "model_type": "gptjx",
        "torch_dtype": str(tensors[WTE].dtype).removeprefix("torch."),
        "tie_word_embeddings": True,
        **model.config.to_dict(),
    }
    settings = {CONFIG_FILE: config, GENERATION_CONFIG_FILE: model.generation_config.to_dict()}
    write_files(Path(folder), settings, tensors)


def _read_config(folder: Path) -> GPTJXConfig:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no {CONFIG_FILE}, so the shape of the model is unknown.")
    try:
        values = read_json_object(path)
        if not {"block_size", "vocab_size", "n_layer", "n_embd"} <= values.keys():
            raise InvalidInputError(
                f"{path} is not the config of a GPTJX model: it needs block_size, vocab_size, n_layer, "
                "n_heads and n_embd."
            )
        return GPTJXConfig.from_dict(values)
    except InvalidInputError as error:
        message = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise CheckpointError(message) from error


def _is_mask_buffer(shape: tuple[int, ...]) -> bool:
    """Causal masks that old checkpoints hold, (1, 1, n, n); by shape, since `bias` is also a parameter's
    name."""
    return len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]


def _canonical(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Rename to transformer.* and lm_head.weight, and fill in whichever of the two tied weights is absent."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        clean = name.replace("_orig_mod.", "")
        if clean.split(".")[0] in ("wte", "wpe", "h", "ln_f"):
            clean = f"transformer.{clean}"
        if clean in renamed:
            raise CheckpointError(f"{folder} holds {clean} twice, once as {name}. Only one can be right.")
        renamed[clean] = tensor
    if LM_HEAD in renamed and WTE in renamed:
        head, wte = renamed[LM_HEAD], renamed[WTE]
        if head.shape == wte.shape and not torch.allclose(head, wte, rtol=0, atol=0, equal_nan=True):
            raise CheckpointError(
                f"{folder}: {LM_HEAD} differs from {WTE}, but GPTJX uses one matrix for both. "
                "This checkpoint is damaged or of another architecture."
            )
    elif LM_HEAD in renamed:
        renamed[WTE] = renamed[LM_HEAD]
    elif WTE in renamed:
        renamed[LM_HEAD] = renamed[WTE]
    return renamed


def _check_fit(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], config: GPTJXConfig, folder: Path
) -> None:
    """Raise one CheckpointError that lists every tensor that is missing, unexpected or wrong."""
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
    listed = [f"{title}:\n  " + "\n  ".join(lines) for title, lines in sections.items() if lines]
    if listed:
        raise CheckpointError(
            f"the tensors in {folder} do not fit its {CONFIG_FILE}.\n" + "\n".join(listed) + "\n"
            f"Check {CONFIG_FILE}: n_layer is {config.n_layer}, n_embd {config.n_embd}, "
            f"vocab_size {config.vocab_size}, block_size {config.block_size}, bias {config.bias}."
        )
