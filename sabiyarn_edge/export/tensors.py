"""Tensors of an exported model: described at once, computed only while they are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ExportError

__all__ = ["Array", "Tensor", "check_finite"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """One initializer of the graph.

    Its description is enough to build the graph and to lay out weights.bin, so that no more than one tensor
    has to be in memory beside the checkpoint.
    """

    name: str
    dtype: str
    """NumPy's name of the element type."""
    shape: tuple[int, ...]
    load: Callable[[], Array]
    """Computes the values: of this dtype and shape, C order."""
    stored_as: str = ""
    """Name of the tensor whose bytes these are, seen with another shape; empty: it has its own."""

    @property
    def nbytes(self) -> int:
        """Size of the values, bytes."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def viewed_as(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The same bytes under another name and shape."""
        if prod(shape) != prod(self.shape):
            raise ValueError(f"{self.name} has shape {self.shape}, which cannot be seen as {shape}")
        return replace(self, name=name, shape=shape, stored_as=self.stored_as or self.name)


def check_finite(values: Array, name: str, dtype: str) -> None:
    """Raise ExportError if a tensor's values, or its scales, are not all finite."""
    if not np.isfinite(values).all():
        raise ExportError(
            f"{name} holds NaN or infinite values as {dtype}: a value is too large for this type. "
            "Export with --dtype float32."
        )
