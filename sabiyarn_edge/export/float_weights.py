"""Matrices of floats in tiles: float32, float16 or bfloat16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .tensors import Array, Tensor, check_finite
from .tiles import tiled_floats, tiled_floats_shape
from .weight_format import Matrix, WeightFormat

__all__ = ["FLOAT_DTYPES", "FloatWeights"]

FLOAT_DTYPES = ("float32", "float16", "bfloat16")


class FloatWeights(WeightFormat):
    """Each weight as the nearest value of the type, ties to even; products compute in float32."""

    def __init__(self, dtype: str) -> None:
        self.name = dtype

    def weight_type(self, matrix: Matrix) -> str:
        return self.name

    def block_size(self, matrix: Matrix) -> int | None:
        return None

    def tiles(self, matrix: Matrix) -> Tensor:
        def load() -> Array:
            check_finite(self.restored(matrix), matrix.name, self.name)
            return tiled_floats(self._stored(matrix))

        return Tensor(matrix.name, "uint8", tiled_floats_shape(*matrix.shape, self._itemsize), load)

    def restored(self, matrix: Matrix) -> Array:
        stored = self._stored(matrix)
        return bfloat16_values(stored) if self.name == "bfloat16" else stored.astype(np.float32)

    @property
    def _itemsize(self) -> int:
        return 4 if self.name == "float32" else 2

    def _stored(self, matrix: Matrix) -> Array:
        """[outputs, inputs] of the stored type; bfloat16, which NumPy lacks, as its bits in uint16."""
        values = matrix.load()
        if self.name == "bfloat16":
            return bfloat16_bits(values)
        with np.errstate(over="ignore"):  # infinities are found, and named, when the tensor is written
            return values.astype(self.name)


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float32, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    # Half of the last kept bit less one, and that bit: a tie carries only into an odd number.
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def bfloat16_values(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """float32 of the same value, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
