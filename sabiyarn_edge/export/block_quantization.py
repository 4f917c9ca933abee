"""Blocks of 8 bits: a row of weights is cut into blocks, each with its own scale.

weight ~ code * scale,   code in -127 ... 127
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_SIZES", "BlockLayout", "Blocks", "block_size_for", "round_to_nearest"]

BLOCK_SIZES = (256, 128, 64, 32, 16)
"""Weights per block that an export allows."""

USUAL_BLOCK_SIZES = (128, 64, 32, 16)
"""The best first: larger blocks have fewer scales to read."""

ROWS_AT_ONCE = 1024
"""Rows of a matrix that are rounded together: bounds the memory of intermediate arrays."""

Floats = NDArray[np.float32]


def block_size_for(width: int) -> int | None:
    """The block size that suits a row of so many weights best; None if none divides it."""
    return next((size for size in USUAL_BLOCK_SIZES if width % size == 0), None)


@dataclass(frozen=True)
class BlockLayout:
    """How a matrix is cut and how finely it is rounded."""

    bits: int
    """4 or 8."""
    size: int
    """Inputs of a product that are rounded together, one of BLOCK_SIZES; at 8 bits so many weights share a scale."""


@dataclass(frozen=True)
class Blocks:
    """A matrix [rows, width] as it is stored."""

    layout: BlockLayout
    codes: NDArray[np.int8]
    """[rows, width]"""
    scales: Floats
    """[rows, blocks]"""

    def restored(self) -> Floats:
        """The values that the operators compute with: float32 [rows, width]."""
        values = np.empty(self.codes.shape, np.float32)
        for begin in range(0, len(values), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            scales = np.repeat(self.scales[part], self.layout.size, axis=1)
            np.multiply(self.codes[part], scales, out=values[part])
        return values


def round_to_nearest(weights: Floats, layout: BlockLayout) -> Blocks:
    """Each weight of [rows, width] to the nearest of the 255 steps from the largest magnitude of its block to its
    negative."""
    rows, width = weights.shape
    scales: Floats = np.abs(weights).reshape(rows, -1, layout.size).max(axis=-1) / np.float32(127)
    scales[scales == 0] = 1  # a block of zeros
    codes = np.empty((rows, width), np.int8)
    for begin in range(0, rows, ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        steps = np.rint(weights[part] / np.repeat(scales[part], layout.size, axis=1))
        with np.errstate(invalid="ignore"):  # NaN is found, and named, when the scales are written
            codes[part] = np.clip(steps, -127, 127).astype(np.int8)
    return Blocks(layout, codes, scales)
