"""Blocks of 4 or 8 bits: a row of weights is cut into blocks, each with its own scale and zero point.

    weight ~ (code - zero_point) * scale,   code and zero_point in 0 ... 2^bits - 1

At 8 bits every zero point is 128 and no code 0, so that code - zero_point is a signed byte of -127 to 127. Codes of 4
bits stand two in a byte, the first in its low half; so do zero points, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCK_SIZES",
    "BlockLayout",
    "Blocks",
    "Grid",
    "block_size_for",
    "codes_on",
    "range_grid",
    "round_to_nearest",
]

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
    """Weights per block, one of BLOCK_SIZES."""

    @property
    def levels(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def packed_width(self, count: int) -> int:
        """Bytes that so many codes take; the last byte may be half used."""
        return (count * self.bits + 7) // 8


@dataclass(frozen=True)
class Grid:
    """The values that each block's weights are rounded to."""

    scales: Floats
    """[rows, blocks]"""
    zero_points: NDArray[np.uint8]
    """[rows, blocks]"""


@dataclass(frozen=True)
class Blocks:
    """A matrix [rows, width] as it is stored."""

    layout: BlockLayout
    codes: NDArray[np.uint8]
    """[rows, blocks, packed_width(size)]"""
    scales: Floats
    """[rows, blocks]"""
    zero_points: NDArray[np.uint8]
    """[rows, packed_width(blocks)]"""

    @classmethod
    def pack(cls, layout: BlockLayout, codes: NDArray[np.uint8], grid: Grid) -> Blocks:
        """From codes [rows, blocks, size], one in a byte."""
        return cls(layout, _packed(codes, layout.bits), grid.scales, _packed(grid.zero_points, layout.bits))

    def unpacked_codes(self) -> NDArray[np.uint8]:
        """[rows, blocks, size], one in a byte."""
        return _unpacked(self.codes, self.layout.bits, self.layout.size)

    def unpacked_zero_points(self) -> NDArray[np.uint8]:
        """[rows, blocks]"""
        return _unpacked(self.zero_points, self.layout.bits, self.scales.shape[1])

    def restored(self) -> Floats:
        """The values that the operators compute with: float32 [rows, width]."""
        rows, blocks = self.scales.shape
        values = np.empty((rows, blocks * self.layout.size), np.float32)
        zero_points = self.unpacked_zero_points()
        for begin in range(0, rows, ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            codes = _unpacked(self.codes[part], self.layout.bits, self.layout.size).astype(np.float32)
            steps = codes - zero_points[part][..., None]
            values[part] = (steps * self.scales[part][..., None]).reshape(len(codes), -1)
        return values


def range_grid(weights: Floats, layout: BlockLayout) -> Grid:
    """From the smallest to the largest weight of each block, widened to include 0: then 0 is exact.

    At 8 bits it reaches as far on both sides of 0: an offset would win half a bit where seven are plenty, and cost
    reading it.

    Args:
        weights: [rows, width]
    """
    blocks = weights.reshape(len(weights), -1, layout.size)
    if layout.bits == 8:
        symmetric: Floats = np.abs(blocks).max(axis=-1) / np.float32(127)
        symmetric[symmetric == 0] = 1  # a block of zeros
        return Grid(symmetric, np.full(symmetric.shape, 128, np.uint8))
    low = np.minimum(blocks.min(axis=-1), 0)
    high = np.maximum(blocks.max(axis=-1), 0)
    scales: Floats = (high - low) / np.float32(layout.levels)
    scales[scales == 0] = 1  # a block of zeros
    return Grid(scales, _clipped(np.rint(-low / scales), layout.levels))


def codes_on(grid: Grid, weights: Floats, layout: BlockLayout) -> NDArray[np.uint8]:
    """The nearest codes [rows, blocks, size] of weights [rows, width]."""
    blocks = weights.reshape(len(weights), -1, layout.size)
    # Rounded before the zero point is added: the sum has fewer bits for the fraction.
    steps = np.rint(blocks / grid.scales[..., None])
    return _clipped(steps + grid.zero_points[..., None], layout.levels)


def round_to_nearest(weights: Floats, layout: BlockLayout) -> Blocks:
    """Each weight of [rows, width] to the nearest value of its block's range."""
    grid = range_grid(weights, layout)
    rows, width = weights.shape
    codes = np.empty((rows, width // layout.size, layout.packed_width(layout.size)), np.uint8)
    for begin in range(0, rows, ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        own = Grid(grid.scales[part], grid.zero_points[part])
        codes[part] = _packed(codes_on(own, weights[part], layout), layout.bits)
    return Blocks(layout, codes, grid.scales, _packed(grid.zero_points, layout.bits))


def _clipped(values: Floats, levels: int) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):  # NaN is found, and named, when the scales are written
        return np.clip(values, 0, levels).astype(np.uint8)


def _packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """[..., count] -> [..., packed_width(count)]"""
    if bits == 8:
        return codes
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    packed: NDArray[np.uint8] = padded[..., 0::2] | np.left_shift(padded[..., 1::2], np.uint8(4))
    return packed


def _unpacked(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """[..., packed_width(count)] -> [..., count]"""
    if bits == 8:
        return packed
    codes = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :count]
