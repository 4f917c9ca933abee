"""The tensors of a checkpoint folder, from whichever files it has, and the files of a saved one."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, InvalidInputError
from ..model_folder.config import read_json_object
from ..system.atomic_write import atomic_files
from ..system.installation import install_command

__all__ = ["first_ten", "read_tensors", "write_files"]

CANDIDATES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Tried in this order."""

Skip = Callable[[str, tuple[int, ...]], bool]


def read_tensors(folder: Path, *, skip: Skip) -> dict[str, Tensor]:
    """All tensors of a checkpoint by the names in its files.

    Args:
        folder: holds one of CANDIDATES.
        skip: given name and shape, whether to leave the tensor out; of safetensors files it is not read then.

    Raises:
        CheckpointError: no such file, or one that is missing, damaged or not a checkpoint.
    """
    for candidate in CANDIDATES:
        path = folder / candidate
        if path.is_file():
            break
    else:
        found = ", ".join(first_ten(sorted(entry.name for entry in folder.iterdir()))) or "nothing"
        raise CheckpointError(
            f"{folder} holds no weights: none of {', '.join(CANDIDATES)}. It holds {found}."
        )
    tensors: dict[str, Tensor] = {}
    for file in _shards(path) if path.suffix == ".json" else [path]:
        shard = _read_safetensors(file, skip) if file.suffix == ".safetensors" else _read_pickled(file, skip)
        repeated = sorted(tensors.keys() & shard.keys())
        if repeated:
            raise CheckpointError(
                f"{file} repeats tensors of another shard: {', '.join(first_ten(repeated))}."
            )
        tensors.update(shard)
    return tensors


def first_ten(names: Sequence[str]) -> list[str]:
    """The first ten names, and how many more there are."""
    return [*names[:10], *([f"and {len(names) - 10} more"] if len(names) > 10 else [])]


def _shards(index: Path) -> list[Path]:
    """The files that an index names, each once."""
    try:
        weight_map = read_json_object(index).get("weight_map")
    except InvalidInputError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f'{index} has no "weight_map" of tensor names to files.')
    names = sorted(set(map(str, weight_map.values())))
    # An index may come from anywhere: it must not make us open files elsewhere.
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{index} names files outside its folder: {', '.join(first_ten(outside))}.")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{index.parent} lacks shards that {index.name} names: {', '.join(first_ten(missing))}."
        )
    return [index.parent / name for name in names]


def _read_safetensors(path: Path, skip: Skip) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise CheckpointError(
            f"reading {path} needs safetensors. Run: {install_command('export')}"
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if not skip(name, _shape(file, name))]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(_damaged(path, error)) from error


def _shape(file: Any, name: str) -> tuple[int, ...]:
    return tuple(file.get_slice(name).get_shape())


def _read_pickled(path: Path, skip: Skip) -> dict[str, Tensor]:
    """A torch.save file; weights_only, because a pickle can run code."""
    try:
        try:
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            content = torch.load(path, map_location="cpu", weights_only=True)  # torch's format before 1.6
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors, which could run code; it was not opened. "
            "Ask for the model as safetensors."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(_damaged(path, error)) from error
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointError(f"{path} holds no plain dict of tensors, which a checkpoint of GPTJX is.")
    return {str(name): tensor for name, tensor in content.items() if not skip(str(name), tuple(tensor.shape))}


def _damaged(path: Path, error: Exception) -> str:
    size = path.stat().st_size if path.is_file() else 0
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{path} ({size} bytes) cannot be read: {reason}. If it is truncated or damaged, fetch it again."


def write_files(folder: Path, settings: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write model.safetensors and JSON files; at no time does a name stand for a half-written file.

    Args:
        folder: made when it does not exist.
        settings: file name -> its JSON content.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_files(folder) as partial:
            for name, content in settings.items():
                (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            weights = partial / "model.safetensors"
            save_file(tensors, weights, metadata={"format": "pt"})
            # safetensors makes files that only their owner may read; give them the mode that others get.
            weights.chmod((partial / next(iter(settings))).stat().st_mode)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {folder}: {error}. Check that it is a writable folder."
        ) from error
