"""What sabiyarn-edge doctor looks at: the board, what is installed, and whether a model fits.

Imports neither onnxruntime nor the compiled core, which may be what is broken.
"""

from __future__ import annotations

from collections.abc import Iterator

from .board import examine_board, examine_cpu, examine_width
from .finding import Finding
from .limits import examine_memory, examine_threads
from .model import examine_model
from .software import examine_software, examine_telemetry
from .storage import examine_cache
from .system import System

__all__ = ["Finding", "System", "examine"]


def examine(system: System, model: str | None = None) -> Iterator[Finding]:
    """Look at everything, one finding after the other; some take seconds."""
    yield examine_board(system)
    yield examine_width(system)
    yield examine_cpu(system)
    yield examine_memory(system)
    yield examine_threads(system)
    yield from examine_software(system)
    yield examine_telemetry()
    yield examine_cache()
    if model is not None:
        yield examine_model(system, model)
