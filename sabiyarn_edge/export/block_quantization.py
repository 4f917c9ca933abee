"""8-bit blocks: a row of weights is cut into blocks, each with its own scale and zero point.

    weight ~ (code - zero_point) * scale,   code and zero_point in 0 ... 255

The range of a block is widened to include 0, so that 0 is exact. This is the form that onnxruntime's
MatMulNBits and GatherBlockQuantized read (docs/ContribOperators.md of its repository).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_SIZES", "block_codes", "block_scales", "block_size_for", "block_zero_points"]

BLOCK_SIZES = (128, 64, 32, 16)
"""Weights per block, the best first: at 128 MatMulNBits runs at twice the speed of 32; it allows none below
16."""

LEVELS = 255

_ROWS_AT_ONCE = 1024
"""Rows of a matrix that are rounded together: bounds the memory of intermediate arrays."""


def block_size_for(width: int) -> int | None:
    """The largest block size that divides a row of so many weights; None if none does."""
    return next((size for size in BLOCK_SIZES if width % size == 0), None)


def block_scales(weights: NDArray[np.float32], block_size: int) -> NDArray[np.float32]:
    """Scales [rows, blocks] of weights [rows, width]."""
    blocks = weights.reshape(len(weights), -1, block_size)
    low = np.minimum(blocks.min(axis=-1), 0)
    high = np.maximum(blocks.max(axis=-1), 0)
    scales: NDArray[np.float32] = (high - low) / np.float32(LEVELS)
    scales[scales == 0] = 1  # a block of zeros
    return scales


def block_zero_points(weights: NDArray[np.float32], block_size: int) -> NDArray[np.uint8]:
    """Zero points [rows, blocks] of weights [rows, width]."""
    low = np.minimum(weights.reshape(len(weights), -1, block_size).min(axis=-1), 0)
    return _as_codes(np.rint(-low / block_scales(weights, block_size)))


def block_codes(weights: NDArray[np.float32], block_size: int) -> NDArray[np.uint8]:
    """Codes [rows, blocks, block_size] of weights [rows, width]."""
    rows, width = weights.shape
    codes = np.empty((rows, width // block_size, block_size), np.uint8)
    for begin in range(0, rows, _ROWS_AT_ONCE):
        part = weights[begin : begin + _ROWS_AT_ONCE]
        scales = block_scales(part, block_size)[..., None]
        zero_points = block_zero_points(part, block_size)[..., None]
        # Rounded before the zero point is added: the sum has fewer bits for the fraction.
        steps = np.rint(part.reshape(len(part), -1, block_size) / scales)
        codes[begin : begin + len(part)] = _as_codes(steps + zero_points)
    return codes


def _as_codes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):  # NaN is found, and named, when the scales are written
        return np.clip(values, 0, LEVELS).astype(np.uint8)
