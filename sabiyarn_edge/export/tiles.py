"""Lays a matrix out as tiles, which our operators Linear and Embedding read.

csrc/core/kernels/tiled_matrix.hpp says how a tile lies in memory, and why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .block_quantization import BlockLayout, Blocks
from .table_quantization import SUB_BLOCK, TableBlocks

__all__ = ["TILE_OUTPUTS", "tiled", "tiled_floats", "tiled_floats_shape", "tiled_shape"]

TILE_OUTPUTS = 8
"""Rows of a matrix that are woven into one tile."""

_IN_GROUP = 4  # codes of one row that stand side by side


def tiled_shape(rows: int, width: int, layout: BlockLayout) -> tuple[int, int]:
    """[tiles, bytes of a tile] of a matrix [rows, width]."""
    if layout.bits == 8:
        tile_bytes = TILE_OUTPUTS * (width // layout.size * 4 + width)
    else:
        tile_bytes = TILE_OUTPUTS * (4 + width // SUB_BLOCK + width // 2)
    return -(-rows // TILE_OUTPUTS), tile_bytes


def tiled(blocks: Blocks | TableBlocks) -> NDArray[np.uint8]:
    """The matrix as uint8 [tiles, bytes of a tile]; the last tile is filled up with rows of zeros."""
    rows, width = blocks.codes.shape
    tiles, tile_bytes = tiled_shape(rows, width, blocks.layout)
    count = width // blocks.layout.size

    def woven(values: NDArray[Any], of_block: int) -> NDArray[np.uint8]:
        """[rows, count * of_block * n] -> [tiles, count, bytes]: of each n numbers those of 8 rows after another."""
        padded = np.zeros((tiles * TILE_OUTPUTS, values.shape[1]), values.dtype)
        padded[:rows] = values
        by_tile = padded.reshape(tiles, TILE_OUTPUTS, count, of_block, -1).transpose(0, 2, 3, 1, 4)
        return np.ascontiguousarray(by_tile).reshape(tiles, count, -1).view(np.uint8)

    if isinstance(blocks, Blocks):
        codes = woven(blocks.codes, blocks.layout.size // _IN_GROUP)
        return np.concatenate([woven(blocks.scales, 1), codes], axis=-1).reshape(tiles, tile_bytes)
    halves = blocks.codes.reshape(rows, -1, 2, _IN_GROUP)
    both = (halves[:, :, 0] | np.left_shift(halves[:, :, 1], np.uint8(4))).reshape(rows, -1)
    body = np.concatenate(
        [
            woven(blocks.scales.subs, blocks.layout.size // SUB_BLOCK),
            woven(both, blocks.layout.size // (2 * _IN_GROUP)),
        ],
        axis=-1,
    ).reshape(tiles, -1)
    row_scales = np.zeros(tiles * TILE_OUTPUTS, np.float32)
    row_scales[:rows] = blocks.scales.rows
    return np.concatenate([row_scales.reshape(tiles, -1).view(np.uint8), body], axis=-1)


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
