"""What a file is, by the ending of its name, in small letters or capitals."""

from __future__ import annotations

from pathlib import Path

__all__ = ["has_ending", "is_packed"]


def has_ending(name: object, *endings: str) -> bool:
    """Whether a path has one of the endings, like ".npy"; what is no path has none."""
    return isinstance(name, str | Path) and str(name).lower().endswith(endings)


def is_packed(name: object) -> bool:
    """Whether a file is compressed by gzip."""
    return has_ending(name, ".gz")
