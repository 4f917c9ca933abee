"""Examines the board, the installed libraries and, if one is given, a model: `sabiyarn-edge doctor`.

Imports neither onnxruntime nor the compiled core, because they may be broken.
"""

from __future__ import annotations

from collections.abc import Iterator

from .board import examine_board, examine_cpu, examine_width
from .finding import Finding
from .limits import examine_memory, examine_threads
from .model import examine_model
from .software import examine_software, examine_telemetry
from .system import System

__all__ = ["Finding", "System", "examine"]


def examine(system: System, model: str | None = None) -> Iterator[Finding]:
    """Yield all findings, one after the other. Some take seconds."""
    yield examine_board(system)
    yield examine_width(system)
    yield examine_cpu(system)
    yield examine_memory(system)
    yield examine_threads(system)
    yield from examine_software(system)
    yield examine_telemetry()
    if model is not None:
        yield examine_model(system, model)
