"""The library of operators that exported graphs use: own products, attention and norms for onnxruntime.

It is plain C++ without Python in it; other programs that use onnxruntime can run the graphs with it too
(RegisterCustomOpsLibrary of its C interface).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .. import _core
from ..errors import InvalidInputError, ModelFolderError, shown
from ..system.memory_errors import ran_out_of_memory

__all__ = ["DOMAIN", "ISA_VARIABLE", "LIBRARY", "check_instruction_set", "register_operators"]

DOMAIN = "sabiyarn"
"""Of the operators in a graph."""

LIBRARY = Path(_core.__file__).with_name("libsabiyarn_operators.so")
"""Beside the compiled core; macOS calls it .so as well."""


ISA_VARIABLE = "SABIYARN_EDGE_ISA"
"""Environment variable that names the highest instruction set to use, read once per process (for tests, reports)."""


def check_instruction_set() -> None:
    """Raise InvalidInputError if SABIYARN_EDGE_ISA names no instruction set of this CPU."""
    name = os.environ.get(ISA_VARIABLE, "")
    usable = _core.linear_kernels()  # from the named one down; all of the CPU's if it knows no such name
    if name and name not in usable:
        raise InvalidInputError(
            f"{ISA_VARIABLE} is {shown(name)}; this CPU has {', '.join(usable)}. Set one of these, or unset it."
        )


def register_operators(options: Any) -> None:
    """Let sessions made with these `onnxruntime.SessionOptions` know the operators.

    Raises:
        InvalidInputError: SABIYARN_EDGE_ISA names an instruction set that this CPU lacks.
        ModelFolderError: the library is not there, or onnxruntime cannot load it.
        MemoryError: there is no memory or no address space for it.
    """
    check_instruction_set()
    try:
        options.register_custom_ops_library(str(LIBRARY))
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        if ran_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise ModelFolderError(
            f"onnxruntime cannot load the operators in {LIBRARY}: {error}. Install sabiyarn-edge again."
        ) from error
