"""Lays a matrix out as tiles, which our operators Linear and Embedding read.

csrc/core/kernels/tiled_matrix.hpp says how a tile lies in memory, and why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .block_quantization import BlockLayout, Blocks

__all__ = ["TILE_OUTPUTS", "tiled", "tiled_floats", "tiled_floats_shape", "tiled_shape"]

TILE_OUTPUTS = 8
"""Rows of a matrix that are woven into one tile."""

_IN_GROUP = 4  # codes of one row that stand side by side


def tiled_shape(rows: int, width: int, layout: BlockLayout) -> tuple[int, int]:
    """[tiles, bytes of a tile] of a matrix [rows, width]."""
    header = 4 * TILE_OUTPUTS * (1 if layout.bits == 8 else 2)
    block = header + TILE_OUTPUTS * layout.size * layout.bits // 8
    return -(-rows // TILE_OUTPUTS), width // layout.size * block


def tiled(blocks: Blocks) -> NDArray[np.uint8]:
    """The matrix as uint8 [tiles, bytes of a tile]; the last tile is filled up with rows of zeros."""
    layout = blocks.layout
    rows, count = blocks.scales.shape
    tiles = -(-rows // TILE_OUTPUTS)

    def woven(values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """[rows, blocks] float32 -> [tiles, blocks, 4 * TILE_OUTPUTS] bytes"""
        padded = np.zeros((tiles * TILE_OUTPUTS, count), np.float32)
        padded[:rows] = values
        by_tile = padded.reshape(tiles, TILE_OUTPUTS, count).transpose(0, 2, 1)
        return np.ascontiguousarray(by_tile).view(np.uint8)

    codes = np.zeros((tiles * TILE_OUTPUTS, count, layout.size), np.uint8)
    codes[:rows] = blocks.unpacked_codes()
    if layout.bits == 8:  # zero points are all 128: see range_grid
        codes[:rows] ^= np.uint8(128)
        groups = codes.reshape(tiles, TILE_OUTPUTS, count, -1, _IN_GROUP)
        headers = [woven(blocks.scales)]
    else:
        halves = codes.reshape(tiles, TILE_OUTPUTS, count, -1, 2, _IN_GROUP)
        groups = halves[..., 0, :] | np.left_shift(halves[..., 1, :], np.uint8(4))
        zero_points = blocks.unpacked_zero_points().astype(np.float32)
        headers = [woven(blocks.scales), woven(-zero_points * blocks.scales)]
    # [tiles, rows of a tile, blocks, groups, 4] -> [tiles, blocks, groups, rows of a tile, 4]
    body = groups.transpose(0, 2, 3, 1, 4).reshape(tiles, count, -1)
    return np.concatenate([*headers, body], axis=-1).reshape(tiles, -1)


def tiled_floats_shape(rows: int, width: int, itemsize: int) -> tuple[int, int]:
    """[tiles, bytes of a tile] of a matrix [rows, width] of floats of so many bytes."""
    return -(-rows // TILE_OUTPUTS), width * TILE_OUTPUTS * itemsize


def tiled_floats(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """A matrix [rows, width] of floats as uint8 [tiles, bytes of a tile]; the last tile is filled up with zeros."""
    rows, width = stored.shape
    tiles = -(-rows // TILE_OUTPUTS)
    padded = np.zeros((tiles * TILE_OUTPUTS, width), stored.dtype)
    padded[:rows] = stored
    by_tile = padded.reshape(tiles, TILE_OUTPUTS, width).transpose(0, 2, 1)
    return np.ascontiguousarray(by_tile).reshape(tiles, -1).view(np.uint8)
