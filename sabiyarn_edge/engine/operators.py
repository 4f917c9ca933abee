"""The library of operators that exported graphs use: own products, attention and norms for onnxruntime.

It is plain C++ without Python in it; other programs that use onnxruntime can run the graphs with it too
(RegisterCustomOpsLibrary of its C interface).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import _core
from ..errors import ModelFolderError
from ..system.memory_errors import ran_out_of_memory

__all__ = ["DOMAIN", "LIBRARY", "register_operators"]

DOMAIN = "sabiyarn"
"""Of the operators in a graph."""

LIBRARY = Path(_core.__file__).with_name("libsabiyarn_operators.so")
"""Beside the compiled core; macOS calls it .so as well."""


def register_operators(options: Any) -> None:
    """Let sessions made with these `onnxruntime.SessionOptions` know the operators.

    Raises:
        ModelFolderError: the library is not there, or onnxruntime cannot load it.
        MemoryError: there is no memory or no address space for it.
    """
    try:
        options.register_custom_ops_library(str(LIBRARY))
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        if ran_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise ModelFolderError(
            f"onnxruntime cannot load the operators in {LIBRARY}: {error}. Install sabiyarn-edge again."
        ) from error
