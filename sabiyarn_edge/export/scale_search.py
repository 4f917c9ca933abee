"""Scales for weights of 4 bits: of each 16 weights, the one with the least rounding error that was found.

"nearest" takes the scale that maps the largest weight to the table's end on its side. "search" tries more, on both
sides, fits each to the codes that it leads to (least squares), and takes the one with the least sum of
importance * error^2. The integers that are stored in their place are searched once more, each with its neighbours.
"""

from __future__ import annotations

import numpy as np

from .block_quantization import ROWS_AT_ONCE, BlockLayout, Floats
from .table_quantization import SUB_BLOCK, TABLE, TableBlocks, TableScales, nearest_codes

__all__ = ["round_to_nearest_entries", "round_to_searched", "searched_scales"]

REACHES = (-34.0, -31.0, -28.0, -25.0, -22.0, 19.5, 22.0, 25.0, 28.0, 31.0)
"""Where the largest weight is mapped to: the table reaches from -31 to 28, and what is beyond is clipped."""

NEIGHBOURS = (0, -1, 1, -2, 2)
"""Integers that are tried beside the nearest to a scale."""


def searched_scales(weights: Floats, importance: Floats | None = None) -> TableScales:
    """The best scales found for weights [rows, width].

    Args:
        importance: [width], how much an error of each column counts; None: all the same.
    """
    return _by_parts(weights, importance, REACHES, NEIGHBOURS)


def round_to_searched(weights: Floats, layout: BlockLayout, importance: Floats | None = None) -> TableBlocks:
    """Each weight of [rows, width] to the nearest value that its searched scale allows."""
    return _rounded(weights, layout, searched_scales(weights, importance))


def round_to_nearest_entries(weights: Floats, layout: BlockLayout) -> TableBlocks:
    """The same with scales that map the largest weight of each 16 to an end of the table."""
    return _rounded(weights, layout, _by_parts(weights, None, (), (0,)))


def _rounded(weights: Floats, layout: BlockLayout, scales: TableScales) -> TableBlocks:
    codes = np.empty(weights.shape, np.uint8)
    for begin in range(0, len(weights), ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        steps = np.repeat(TableScales(scales.rows[part], scales.subs[part]).steps(), SUB_BLOCK, axis=1)
        codes[part] = nearest_codes(weights[part], steps)
    return TableBlocks(layout, codes, scales)


def _by_parts(
    weights: Floats, importance: Floats | None, reaches: tuple[float, ...], neighbours: tuple[int, ...]
) -> TableScales:
    counts = np.ones(weights.shape[1], np.float32) if importance is None else importance
    parts = [
        _search(weights[begin : begin + ROWS_AT_ONCE], counts, reaches, neighbours)
        for begin in range(0, len(weights), ROWS_AT_ONCE)
    ]
    return TableScales(
        np.concatenate([part.rows for part in parts]), np.concatenate([part.subs for part in parts])
    )


def _search(
    weights: Floats, importance: Floats, reaches: tuple[float, ...], neighbours: tuple[int, ...]
) -> TableScales:
    subs = weights.reshape(len(weights), -1, SUB_BLOCK)
    counts = importance.reshape(1, -1, SUB_BLOCK)
    furthest = np.take_along_axis(subs, np.abs(subs).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    # The longer side of the table, which is the negative one, is for the side that reaches further.
    best: Floats = furthest / TABLE[0]
    least, _ = _error(subs, counts, best)
    for reach in reaches:
        steps = furthest / np.float32(reach)
        for _ in range(2):
            error, fitted = _error(subs, counts, steps)
            better = error < least
            least, best = np.where(better, error, least), np.where(better, steps, best)
            steps = fitted
    rows: Floats = np.abs(best).max(axis=-1) / np.float32(127)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(rows[:, None] > 0, np.rint(best / rows[:, None]), np.float32(0))
    chosen, least = np.zeros_like(best), np.full(best.shape, np.inf, np.float32)
    for difference in neighbours:
        integers = np.clip(first + np.float32(difference), -127, 127)
        error, _ = _error(subs, counts, rows[:, None] * integers)
        better = error < least
        least, chosen = np.where(better, error, least), np.where(better, integers, chosen)
    return TableScales(rows, chosen.astype(np.int8))


def _error(subs: Floats, counts: Floats, steps: Floats) -> tuple[Floats, Floats]:
    """The counted error of each 16 weights with these steps [rows, subs], and the steps that fit their codes best."""
    entries = TABLE[nearest_codes(subs, steps[..., None])]
    counted = entries * counts
    error = (counts * (subs - entries * steps[..., None]) ** 2).sum(axis=-1)
    fitted = (counted * subs).sum(axis=-1) / np.maximum((counted * entries).sum(axis=-1), np.float32(1e-30))
    return error, fitted.astype(np.float32)
