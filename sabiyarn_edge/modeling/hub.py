"""Where a checkpoint is: a local folder, or a hub id whose files huggingface_hub fetches and caches."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import CheckpointError
from ..system.installation import install_command

__all__ = ["expanded", "locate_checkpoint"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""owner/name, as the hub names repositories."""

SMALL_FILES = ["*.json", "*.safetensors"]
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


def _download(hub_id: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"there is no folder {hub_id}, and reading it from the hub needs huggingface_hub. "
            f"Check the path, or run: {install_command('export')}"
        ) from error
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=SMALL_FILES))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=PICKLED_FILES))
    except (OSError, ValueError) as error:  # all of huggingface_hub's own errors are one or the other
        reason = str(error).strip() or type(error).__name__
        raise CheckpointError(
            f"there is no folder {hub_id}, and the hub did not give it: {reason} "
            "Check the name and the network; a private model needs `hf auth login` first."
        ) from error
    return folder
