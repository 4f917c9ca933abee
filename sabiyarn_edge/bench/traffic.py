"""Counts the bytes that one step has to read from memory, which bound its time."""

from __future__ import annotations

from pathlib import Path

from ..model_folder.config import ModelConfig
from ..model_folder.weights_file import StoredTensor, WeightsHeader

__all__ = ["step_bytes", "weight_bytes_per_step"]

_POSITION_TABLE = "transformer.wpe."  # one row of it is read, unlike of the others


def weight_bytes_per_step(folder: Path) -> int:
    """Return the bytes of weights that a step of one row reads: all matrices once, the tied wte as lm_head; of banks
    of experts, the chosen ones."""
    config = ModelConfig.load(folder)
    tensors = WeightsHeader.read(Path(folder) / config.weights_file).tensors
    read = {
        t.offset: _read_of(name, t, config)
        for name, t in tensors.items()
        if not name.startswith(_POSITION_TABLE)
    }
    return sum(read.values())


def _read_of(name: str, tensor: StoredTensor, config: ModelConfig) -> int:
    """Bytes of a tensor that a step reads. The first axis of a bank is that of the experts."""
    if not name.endswith("_bank"):
        return tensor.nbytes
    return tensor.nbytes // tensor.shape[0] * config.gptjx.num_experts_per_tok


def step_bytes(weight_bytes: int, kv_bytes: int, past: int) -> int:
    """Return the bytes that a step of one row reads behind `past` tokens."""
    return weight_bytes + kv_bytes * past
