"""Warnings that point at the caller's line, however deep in this package they arise."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from ..errors import bounded

__all__ = ["warn_caller"]

_PACKAGE = __name__.partition(".")[0]


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn at the first line outside this package on the way back from here."""
    frame: FrameType | None = sys._getframe()
    level = 1
    while frame is not None and _is_ours(str(frame.f_globals.get("__name__"))):
        frame, level = frame.f_back, level + 1
    warnings.warn(bounded(message), category, stacklevel=level)


def _is_ours(module: str) -> bool:
    """Also of functions that dataclasses generate: what they know as their module is the class's."""
    return module == _PACKAGE or module.startswith(f"{_PACKAGE}.")
