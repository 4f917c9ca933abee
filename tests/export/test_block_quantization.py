"""8-bit blocks against a twin that goes number by number."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge.export.block_quantization import (
    block_codes,
    block_scales,
    block_size_for,
    block_zero_points,
)
from tests.export.models import rounded_to_blocks


def dequantized(weights: np.ndarray, size: int) -> np.ndarray:
    codes = block_codes(weights, size).astype(np.float64)
    blocks = (codes - block_zero_points(weights, size)[..., None]) * block_scales(weights, size)[..., None]
    return blocks.reshape(weights.shape)


@pytest.mark.parametrize(
    ("width", "expected"),
    [(768, 128), (3072, 128), (192, 64), (96, 32), (48, 16), (16, 16), (24, None), (8, None)],
)
def test_block_size_is_the_largest_that_divides(width: int, expected: int | None) -> None:
    assert block_size_for(width) == expected


@pytest.mark.parametrize("width", [16, 96, 256])
def test_equals_the_twin(width: int) -> None:
    weights = np.random.default_rng(width).standard_normal((1500, width)).astype(np.float32)
    size = block_size_for(width)
    assert size is not None
    assert block_codes(weights, size).shape == (1500, width // size, size)
    np.testing.assert_allclose(dequantized(weights, size), rounded_to_blocks(weights), rtol=1e-6, atol=1e-9)


def test_error_is_at_most_one_step_and_zero_is_exact() -> None:
    weights = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    weights[:, ::7] = 0
    result = dequantized(weights, 128)
    assert (result[:, ::7] == 0).all()
    assert (np.abs(result - weights) <= 1.0001 * block_scales(weights, 128)).all()


@pytest.mark.parametrize(
    "block",
    [
        np.zeros(16),
        np.full(16, 3.0),
        np.full(16, -0.5),
        np.linspace(0, 1, 16),
        np.linspace(-9, -1, 16),
        np.eye(16)[3],
    ],
    ids=["zeros", "equal", "equal-negative", "positive", "negative", "one"],
)
def test_one_sided_blocks(block: np.ndarray) -> None:
    """Their range is widened to 0, so the ends stay exact."""
    weights = block.astype(np.float32)[None]
    result = dequantized(weights, 16)[0]
    scale = float(block_scales(weights, 16)[0, 0])
    np.testing.assert_allclose(result, block, atol=scale / 2 + 1e-7)
    furthest = np.abs(block).argmax()
    assert result[furthest] == pytest.approx(block[furthest], rel=1e-6)


def test_values_that_are_no_numbers_show_in_the_scales() -> None:
    weights = np.zeros((2, 16), np.float32)
    weights[1, 3] = np.nan
    assert np.isnan(block_scales(weights, 16)[1, 0])
    block_codes(weights, 16)  # without a warning
