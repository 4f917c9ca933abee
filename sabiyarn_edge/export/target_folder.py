"""The folder that an export makes: complete, or not there at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ExportError
from ..system.atomic_write import atomic_folder

__all__ = ["check_target", "target_folder"]


def check_target(out: Path, source: Path | None, *, force: bool) -> None:
    """Refuse an OUT that must not be written.

    Args:
        source: the checkpoint folder, if it is a local one.
        force: allows OUT to be an earlier export. Never anything else: a slip of the keyboard must not delete
            a home folder.

    Raises:
        ExportError: OUT cannot be made there, or exists and may not be replaced.
    """
    nearest = next(parent for parent in out.absolute().parents if os.path.lexists(parent))
    if not nearest.is_dir():
        raise ExportError(f"{nearest} is not a folder, so {out} cannot be made in it. Choose another OUT.")
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise ExportError(f"{out} exists and is not a folder. Choose another OUT.")
    if not any(out.iterdir()):
        return
    if not force:
        raise ExportError(f"{out} exists already. Choose another OUT, or replace it with --force.")
    if not _is_model_folder(out):
        raise ExportError(
            f"{out} exists and is not an exported model (no config.json with a sabiyarn_edge section), so "
            "it is not replaced even with --force. Choose another OUT, or delete it yourself."
        )
    if source is not None and source.resolve().is_relative_to(out.resolve()):
        raise ExportError(f"{out} holds the checkpoint {source} itself. Choose another OUT.")


@contextmanager
def target_folder(out: Path) -> Iterator[Path]:
    """A new folder beside OUT to fill: takes OUT's place when the block ends, vanishes when the block fails.

    An OUT that exists is deleted after that; `check_target` must have allowed it. See `atomic_write.atomic_folder`.

    Raises:
        ExportError: the disk is full, or OUT cannot be written.
    """
    out = out.resolve()  # the folder behind a symbolic link is replaced, not the link
    made_parents: list[Path] = []
    try:
        made_parents = _make_parents(out.parent)
        with atomic_folder(out) as partial:
            yield partial
    except BaseException as error:  # Ctrl-C too must leave nothing behind
        for parent in made_parents:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise ExportError(_explain(error, out)) from error
        raise


def _is_model_folder(folder: Path) -> bool:
    try:
        return "sabiyarn_edge" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were missing, the deepest first."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _explain(error: OSError, out: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk became full while {out} was written, and nothing was left there. Free some space."
    where = f" ({error.filename})" if error.filename else ""
    return f"cannot write {out}: {error.strerror or error}{where}. Choose an OUT that you may write to."
