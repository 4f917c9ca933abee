"""Weights of 4 bits: codes that mean the entries of a table, with a scale for each 16 weights and one for each row.

    weight ~ row_scale[row] * (scale[row, column / 16] * TABLE[code])

Scales are integers, -127 to 127. csrc/core/kernels/tiled_matrix.hpp has the same table, and says why it is so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .block_quantization import ROWS_AT_ONCE, BlockLayout, Floats

__all__ = ["SUB_BLOCK", "TABLE", "TableBlocks", "TableScales", "nearest_codes"]

SUB_BLOCK = 16
"""Weights that share a scale."""

TABLE = np.array([-31, -22, -17, -13, -10, -7, -4, -1, 1, 3, 6, 9, 12, 16, 21, 28], np.float32)
"""What the codes 0 to 15 mean."""

BORDERS = (TABLE[1:] + TABLE[:-1]) / 2
"""Between neighbouring entries."""


@dataclass(frozen=True)
class TableScales:
    """The scales of a matrix [rows, width]."""

    rows: Floats
    """[rows]"""
    subs: NDArray[np.int8]
    """[rows, width / 16]"""

    def steps(self) -> Floats:
        """What an entry of 1 means: [rows, width / 16]."""
        return self.rows[:, None] * self.subs.astype(np.float32)


@dataclass(frozen=True)
class TableBlocks:
    """A matrix [rows, width] as it is stored."""

    layout: BlockLayout
    codes: NDArray[np.uint8]
    """[rows, width], one in a byte."""
    scales: TableScales

    def restored(self) -> Floats:
        """The values that the operators compute with: float32 [rows, width]."""
        values = np.empty(self.codes.shape, np.float32)
        for begin in range(0, len(values), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            entries = TABLE[self.codes[part]].reshape(*self.scales.subs[part].shape, SUB_BLOCK)
            scaled = entries * self.scales.subs[part].astype(np.float32)[..., None]  # integers: exact
            values[part] = scaled.reshape(len(scaled), -1) * self.scales.rows[part, None]
        return values


def nearest_codes(weights: Floats, steps: Floats) -> NDArray[np.uint8]:
    """The codes of the nearest entries.

    Args:
        weights: [...]
        steps: what an entry of 1 means, of a shape that broadcasts to that of the weights. Where it is 0, every code
            means 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(steps == 0, np.float32(0), weights / steps)
    return np.searchsorted(BORDERS, scaled).astype(np.uint8)
