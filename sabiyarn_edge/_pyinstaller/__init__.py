"""Tells PyInstaller where this package's hook is: programs that use it are frozen without options."""

from __future__ import annotations

from pathlib import Path

__all__ = ["get_hook_dirs"]


def get_hook_dirs() -> list[str]:
    """Folders with hooks; PyInstaller finds this function by the entry point pyinstaller40."""
    return [str(Path(__file__).parent)]
