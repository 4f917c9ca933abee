"""Searched grids against the range of each block and against a search in plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge.export import scale_search
from sabiyarn_edge.export.block_quantization import BlockLayout, codes_on, range_grid, round_to_nearest
from sabiyarn_edge.export.scale_search import REFITS, SHRINKAGE, round_to_searched, searched_grid

LAYOUT = BlockLayout(4, 32)


def weights(seed: int = 0, rows: int = 40, width: int = 96) -> np.ndarray:
    """Bell-shaped with heavy tails, as trained weights are."""
    return np.random.default_rng(seed).standard_t(5, size=(rows, width)).astype(np.float32)


def errors(values: np.ndarray, restored: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Sum of squares of each block."""
    square = (values.astype(np.float64) - restored) ** 2 * (1 if importance is None else importance)
    return square.reshape(len(values), -1, LAYOUT.size).sum(axis=-1)


def on(values: np.ndarray, grid: object) -> np.ndarray:
    steps = codes_on(grid, values, LAYOUT).astype(np.float64) - grid.zero_points[..., None]
    return (steps * grid.scales[..., None]).reshape(values.shape)


@pytest.mark.parametrize("bits", [4, 8])
def test_no_block_is_worse_than_by_its_range_and_all_together_are_better(bits: int) -> None:
    values, layout = weights(), BlockLayout(bits, LAYOUT.size)
    searched = errors(values, round_to_searched(values, layout).restored())
    ranged = errors(values, round_to_nearest(values, layout).restored())
    assert (
        searched <= ranged * (1 + 1e-4)
    ).all()  # the range itself is tried; float32 sums differ in the last digits
    if bits == 4:
        assert searched.sum() < 0.95 * ranged.sum()


def test_clipping_pays_in_large_blocks() -> None:
    """9 % of the error; 6 % are what fitted scales win without it."""
    values, layout = weights(width=384), BlockLayout(4, 128)
    searched = errors(values, round_to_searched(values, layout).restored())
    assert searched.sum() < 0.92 * errors(values, round_to_nearest(values, layout).restored()).sum()


def test_comes_close_to_a_search_in_small_steps() -> None:
    """Block by block, 400 scales and every zero point in plain loops."""
    values = weights(3, rows=2, width=32)
    found = errors(values, round_to_searched(values, LAYOUT).restored())[:, 0]
    for block, error in zip(values.astype(np.float64), found, strict=True):
        best = np.inf
        for scale in np.linspace(0.3, 1.1, 400) * np.ptp(block) / 15:
            for zero_point in range(16):
                codes = np.clip(np.rint(block / scale) + zero_point, 0, 15)
                best = min(best, (((codes - zero_point) * scale - block) ** 2).sum())
        assert best * 0.999 <= error < 1.1 * best


def twin(block: np.ndarray, importance: np.ndarray) -> float:
    """The least error of a block of 4 bits over all fractions and fits, in float64."""
    best = np.inf
    for fraction in SHRINKAGE.astype(np.float64):
        low, high = min(block.min() * fraction, 0), max(block.max() * fraction, 0)
        scale = (high - low) / 15
        zero_point = np.rint(-low / scale)
        for _ in range(1 + REFITS):
            steps = np.clip(np.rint(block / scale) + zero_point, 0, 15) - zero_point
            best = min(best, (importance * (block - steps * scale) ** 2).sum())
            scale = (importance * steps * block).sum() / (importance * steps * steps).sum()
    return float(best)


def test_equals_the_twin_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    values = weights(4)
    importance = np.random.default_rng(5).exponential(size=values.shape[1]).astype(np.float32)
    monkeypatch.setattr(scale_search, "ROWS_AT_ONCE", 17)
    found = errors(values, on(values, searched_grid(values, LAYOUT, importance)), importance)
    shape = (len(values), -1, LAYOUT.size)
    expected = [
        [twin(block, counts) for block, counts in zip(row, importance.reshape(-1, LAYOUT.size), strict=True)]
        for row in values.reshape(shape).astype(np.float64)
    ]
    # float32 against float64: another fraction may win, or a weight fall on the other side of a border
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_important_columns_are_rounded_better() -> None:
    values = weights(1)
    importance = np.where(np.arange(96) % 8 == 0, 100, 1).astype(np.float32)
    plain, weighted = (
        on(values, searched_grid(values, LAYOUT)),
        on(values, searched_grid(values, LAYOUT, importance)),
    )
    assert errors(values, weighted, importance).sum() < 0.9 * errors(values, plain, importance).sum()
    assert errors(values, plain).sum() < errors(values, weighted).sum()


def test_scaled_weights_have_scaled_grids() -> None:
    """By powers of two, which float32 multiplies exactly."""
    values = weights(2)
    one, other = searched_grid(values, LAYOUT), searched_grid(values * 64, LAYOUT)
    np.testing.assert_array_equal(one.zero_points, other.zero_points)
    np.testing.assert_array_equal(one.scales * 64, other.scales)


def test_zeros_and_the_whole_range() -> None:
    grid = searched_grid(np.zeros((2, 32), np.float32), LAYOUT)
    assert (grid.scales > 0).all()
    assert SHRINKAGE[0] == 1
    steps = np.arange(32, dtype=np.float32)[None] % 16  # exactly on a grid
    np.testing.assert_allclose(round_to_searched(steps, LAYOUT).restored(), steps, atol=1e-6)
    assert range_grid(steps, LAYOUT).scales[0, 0] == 1
