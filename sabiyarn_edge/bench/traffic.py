"""What one step has to read from memory, which bounds its time."""

from __future__ import annotations

from pathlib import Path

from ..model_folder.config import ModelConfig
from ..model_folder.weights_file import WeightsHeader

__all__ = ["step_bytes", "weight_bytes_per_step"]

_POSITION_TABLE = "transformer.wpe."  # one row of it is read, unlike of the others


def weight_bytes_per_step(folder: Path) -> int:
    """Bytes of weights that a step of one row reads: all matrices once, the tied wte as lm_head.

    float16 weights are widened when they are loaded, and read as float32.
    """
    config = ModelConfig.load(folder)
    tensors = WeightsHeader.read(Path(folder) / config.weights_file).tensors
    stored = {t.offset: t for name, t in tensors.items() if not name.startswith(_POSITION_TABLE)}
    widened = 2 if config.dtype == "float16-weights" else 1
    return sum(t.nbytes * (widened if t.dtype == "float16" else 1) for t in stored.values())


def step_bytes(weight_bytes: int, kv_bytes: int, past: int) -> int:
    """Bytes that a step of one row reads at so many past tokens."""
    return weight_bytes + kv_bytes * past
