"""Blocks of 8 bits against a twin that goes number by number."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge.export.block_quantization import BlockLayout, block_size_for, round_to_nearest
from tests.export.models import rounded_to_bytes


def restored(weights: np.ndarray, size: int) -> np.ndarray:
    return round_to_nearest(weights.astype(np.float32), BlockLayout(8, size)).restored()


@pytest.mark.parametrize(
    ("width", "expected"),
    [(768, 128), (3072, 128), (192, 64), (96, 32), (48, 16), (16, 16), (24, None), (8, None)],
)
def test_block_size_is_the_largest_that_divides(width: int, expected: int | None) -> None:
    assert block_size_for(width) == expected


@pytest.mark.parametrize(("width", "size"), [(16, 16), (96, 32), (256, 128), (256, 256)])
def test_equals_the_twin(width: int, size: int) -> None:
    weights = np.random.default_rng(width).standard_normal((1500, width)).astype(np.float32)
    np.testing.assert_allclose(restored(weights, size), rounded_to_bytes(weights, size), rtol=1e-6, atol=1e-9)


def test_error_is_at_most_half_a_step_and_zero_is_exact() -> None:
    weights = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    weights[:, ::7] = 0
    made = round_to_nearest(weights, BlockLayout(8, 128))
    assert (made.restored()[:, ::7] == 0).all()
    assert (np.abs(made.restored() - weights) <= 0.5001 * made.scales).all()


@pytest.mark.parametrize(
    "block",
    [np.zeros(16), np.full(16, 3.0), np.full(16, -0.5), np.linspace(1, 9, 16), np.linspace(-9, -1, 16)],
    ids=["zeros", "equal", "equal-negative", "positive", "negative"],
)
def test_the_largest_magnitude_is_exact(block: np.ndarray) -> None:
    furthest = np.abs(block).argmax()
    assert restored(block[None], 16)[0, furthest] == pytest.approx(block[furthest], rel=1e-6)


def test_values_that_are_no_numbers_show_in_the_scales() -> None:
    """And come without a warning."""
    weights = np.zeros((2, 16), np.float32)
    weights[1, 3] = np.nan
    assert np.isnan(round_to_nearest(weights, BlockLayout(8, 16)).scales[1, 0])
