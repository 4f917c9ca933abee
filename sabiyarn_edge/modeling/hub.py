"""Where a checkpoint is: a local folder, or a hub id whose files huggingface_hub fetches and caches."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import CheckpointError
from ..system.installation import install_command
from ..text.tokenizer import TOKENIZER_FILE

__all__ = ["expanded", "locate_checkpoint", "locate_tokenizer"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""owner/name, as the hub names repositories."""

TEXT_FILES = ["*.json", "*.jinja"]
"""Configs, tokenizer and chat template."""
SMALL_FILES = [*TEXT_FILES, "*.safetensors"]
PICKLED_FILES = ["pytorch_model*.bin"]


def expanded(path: str | Path) -> Path:
    """The path with ~ at its beginning as a home folder; as it is where that is nobody's."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def locate_checkpoint(source: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of a checkpoint.

    Args:
        source: a folder, or a hub id "owner/name" when there is no such folder.
        revision: branch, tag or commit of a hub id.

    Raises:
        CheckpointError: neither a folder nor a hub id, or the hub did not give it.
    """
    folder = expanded(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{source} is a file. Give the folder that holds it and config.json.")
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise CheckpointError(
            f"{source} is neither a folder nor a hub id. Give a folder with config.json and weights, "
            'or a hub id such as "owner/name".'
        )
    return _download(source, revision)


def locate_tokenizer(source: str | Path) -> Path:
    """The local folder of another model, whose tokenizer a checkpoint uses; of a hub id without its weights.

    Raises:
        CheckpointError: neither a folder nor a hub id, the hub did not give it, or there is no tokenizer.json.
    """
    folder = expanded(source)
    if not folder.is_dir():
        if isinstance(source, Path) or not HUB_ID.fullmatch(source):
            raise CheckpointError(
                f"the tokenizer {source} is neither a folder nor a hub id. Give a folder with {TOKENIZER_FILE}, or a "
                'hub id such as "owner/name".'
            )
        folder = _download(source, None, weights=False)
    if not (folder / TOKENIZER_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds no {TOKENIZER_FILE}. Give the folder or the hub id of a model that has one."
        )
    return folder


def _download(hub_id: str, revision: str | None, *, weights: bool = True) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"there is no folder {hub_id}, and reading it from the hub needs huggingface_hub. "
            f"Check the path, or run: {install_command('export')}"
        ) from error
    try:
        patterns = SMALL_FILES if weights else TEXT_FILES
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
        if weights and not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=PICKLED_FILES))
    except (OSError, ValueError) as error:  # all of huggingface_hub's own errors are one or the other
        reason = str(error).strip() or type(error).__name__
        raise CheckpointError(
            f"there is no folder {hub_id}, and the hub did not give it: {reason} "
            "Check the name and the network; a private model needs `hf auth login` first."
        ) from error
    return folder
