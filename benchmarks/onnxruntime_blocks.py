"""Blocks of 8 or 4 bits as onnxruntime's MatMulNBits has them, each with a scale and a zero point.

weight ~ (code - zero_point) * scale,   code and zero_point in 0 ... 2^bits - 1
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["packed_width", "round_to_blocks"]


def packed_width(count: int, bits: int) -> int:
    """Return the bytes that so many codes take; the last byte may be half used."""
    return (count * bits + 7) // 8


def round_to_blocks(weights: NDArray[np.float32], bits: int, size: int) -> tuple[NDArray[Any], ...]:
    """Round each weight to the nearest in the range of its block.

    At 4 bits, the range is from the least weight to the largest, and includes 0. At 8 bits it reaches as far on both
    sides of 0, as in this package's exports.

    Args:
        weights: [rows, width]
        size: weights of a block.

    Returns:
        codes uint8 [rows, blocks, bytes], scales float32 [rows, blocks], zero points uint8 [rows, bytes].
    """
    levels = (1 << bits) - 1
    blocks = weights.reshape(len(weights), -1, size)
    if bits == 8:
        scales = np.abs(blocks).max(axis=-1) / np.float32(127)
        scales[scales == 0] = 1
        zero_points = np.full(scales.shape, np.float32(128))
    else:
        low, high = np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0)
        scales = (high - low) / np.float32(levels)
        scales[scales == 0] = 1
        zero_points = np.clip(np.rint(-low / scales), 0, levels)
    codes = np.clip(np.rint(blocks / scales[..., None]) + zero_points[..., None], 0, levels)
    return _packed(codes.astype(np.uint8), bits), scales, _packed(zero_points.astype(np.uint8), bits)


def _packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Put two codes of 4 bits into a byte, the first in its low half."""
    if bits == 8:
        return codes
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    packed: NDArray[np.uint8] = padded[..., 0::2] | np.left_shift(padded[..., 1::2], np.uint8(4))
    return packed
