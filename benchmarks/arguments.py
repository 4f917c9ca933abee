"""Types of command line arguments, which refuse before the run what would fail at its end."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

__all__ = ["count", "out_file"]


def count(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def out_file(text: str) -> Path:
    """A file to write, in a folder that exists."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise ArgumentTypeError(
            f"{text} is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        )
    return path
