"""Grids with less rounding error than a block's whole range gives: the outermost weights are clipped, so that the
steps between the others become finer.

For each block, the range is shrunk in steps; after each, the scale is set to the one that fits the chosen codes best
(least squares) and the codes are chosen anew. The grid with the least sum of importance * error^2 wins.
"""

from __future__ import annotations

import numpy as np

from .block_quantization import ROWS_AT_ONCE, BlockLayout, Blocks, Floats, Grid, codes_on, range_grid

__all__ = ["round_to_searched", "searched_grid"]

SHRINKAGE = np.linspace(1.0, 0.55, 10, dtype=np.float32)
"""Fractions of the range that are tried. The best one at 4 bits in blocks of 128 lies around 0.8."""

REFITS = 2
"""Times that scale and codes are fitted to each other."""


def searched_grid(weights: Floats, layout: BlockLayout, importance: Floats | None = None) -> Grid:
    """The best grid found for weights [rows, width].

    Args:
        importance: [width], how much an error of each column counts; None: all the same.
    """
    parts = [
        _search(weights[begin : begin + ROWS_AT_ONCE], layout, importance)
        for begin in range(0, len(weights), ROWS_AT_ONCE)
    ]
    return Grid(
        np.concatenate([part.scales for part in parts]), np.concatenate([part.zero_points for part in parts])
    )


def round_to_searched(weights: Floats, layout: BlockLayout) -> Blocks:
    """Each weight of [rows, width] to the nearest value of its block's searched grid."""
    grid = searched_grid(weights, layout)
    return Blocks.pack(layout, codes_on(grid, weights, layout), grid)


def _search(weights: Floats, layout: BlockLayout, importance: Floats | None) -> Grid:
    blocks = weights.reshape(len(weights), -1, layout.size)
    counts = np.float32(1) if importance is None else importance.reshape(1, -1, layout.size)
    whole = range_grid(weights, layout)
    best, least = Grid(whole.scales.copy(), whole.zero_points.copy()), np.full(whole.scales.shape, np.inf)
    for fraction in SHRINKAGE:
        grid = range_grid(weights * fraction, layout)
        for _ in range(REFITS + 1):
            steps = codes_on(grid, weights, layout) - grid.zero_points[..., None].astype(np.float32)
            counted = steps * counts
            error = (counts * (blocks - steps * grid.scales[..., None]) ** 2).sum(axis=-1)
            better = error < least
            least[better] = error[better]
            best.scales[better], best.zero_points[better] = grid.scales[better], grid.zero_points[better]
            fitted = (counted * blocks).sum(axis=-1) / np.maximum((counted * steps).sum(axis=-1), 1e-30)
            grid = Grid(np.where(fitted > 0, fitted, grid.scales).astype(np.float32), grid.zero_points)
    return best
