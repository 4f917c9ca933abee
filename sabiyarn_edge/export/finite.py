"""Refuses checkpoints whose finite weights are so large that the torch model overflows float32 on text."""

from __future__ import annotations

from torch import Tensor

from ..errors import CheckpointError

__all__ = ["check_computed"]


def check_computed(values: Tensor, what: str) -> None:
    """Raise CheckpointError if values that the torch model computed are not all finite.

    Args:
        values: any shape.
        what: the values and their text, for the message: "logits for the calibration text".
    """
    if not bool(values.isfinite().all()):
        raise CheckpointError(
            f"the torch model itself gives NaN or infinite {what}, in float32: its weights are finite, but so large "
            "that sums overflow. The checkpoint is damaged, or its training diverged: take an earlier one."
        )
