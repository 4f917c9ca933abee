"""Blocks of 4 and 8 bits against a twin that goes number by number."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge.export.block_quantization import BlockLayout, block_size_for, round_to_nearest
from tests.export.models import rounded_to_blocks

BITS = pytest.mark.parametrize("bits", [4, 8])


def restored(weights: np.ndarray, bits: int, size: int) -> np.ndarray:
    return round_to_nearest(weights.astype(np.float32), BlockLayout(bits, size)).restored()


@pytest.mark.parametrize(
    ("width", "expected"),
    [(768, 128), (3072, 128), (192, 64), (96, 32), (48, 16), (16, 16), (24, None), (8, None)],
)
def test_block_size_is_the_largest_that_divides(width: int, expected: int | None) -> None:
    assert block_size_for(width) == expected


@BITS
@pytest.mark.parametrize(("width", "size"), [(16, 16), (96, 32), (256, 128), (256, 256)])
def test_equals_the_twin(width: int, size: int, bits: int) -> None:
    weights = np.random.default_rng(width).standard_normal((1500, width)).astype(np.float32)
    twin = rounded_to_blocks(weights, bits=bits, size=size)
    np.testing.assert_allclose(restored(weights, bits, size), twin, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_two_codes_of_4_bits_stand_in_a_byte_the_first_one_low(blocks: int) -> None:
    """Read apart by plain arithmetic, with a zero point left over where the number of blocks is odd."""
    weights = np.random.default_rng(blocks).standard_normal((2, 16 * blocks)).astype(np.float32)
    made = round_to_nearest(weights, BlockLayout(4, 16))
    assert made.codes.shape == (2, blocks, 8)
    assert made.zero_points.shape == (2, (blocks + 1) // 2)
    values = np.empty(weights.shape)
    for row, column in np.ndindex(*weights.shape):
        block, place = divmod(column, 16)
        code = int(made.codes[row, block, place // 2]) // 16 ** (place % 2) % 16
        zero_point = int(made.zero_points[row, block // 2]) // 16 ** (block % 2) % 16
        values[row, column] = (code - zero_point) * made.scales[row, block]
    np.testing.assert_allclose(made.restored(), values, rtol=1e-6)


@BITS
def test_error_is_at_most_one_step_and_zero_is_exact(bits: int) -> None:
    weights = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    weights[:, ::7] = 0
    made = round_to_nearest(weights, BlockLayout(bits, 128))
    assert (made.restored()[:, ::7] == 0).all()
    assert (np.abs(made.restored() - weights) <= 1.0001 * made.scales).all()


@BITS
@pytest.mark.parametrize(
    "block",
    [
        np.zeros(16),
        np.full(16, 3.0),
        np.full(16, -0.5),
        np.linspace(0, 1, 16),
        np.linspace(1, 9, 16),
        np.linspace(-9, -1, 16),
        np.eye(16)[3],
    ],
    ids=["zeros", "equal", "equal-negative", "from-zero", "positive", "negative", "one"],
)
def test_one_sided_blocks(block: np.ndarray, bits: int) -> None:
    """Their range is widened to 0, so the ends stay exact."""
    made = round_to_nearest(block.astype(np.float32)[None], BlockLayout(bits, 16))
    result = made.restored()[0]
    np.testing.assert_allclose(result, block, atol=float(made.scales[0, 0]) / 2 + 1e-7)
    furthest = np.abs(block).argmax()
    assert result[furthest] == pytest.approx(block[furthest], rel=1e-6)


def test_values_that_are_no_numbers_show_in_the_scales() -> None:
    """And come without a warning."""
    weights = np.zeros((2, 16), np.float32)
    weights[1, 3] = np.nan
    assert np.isnan(round_to_nearest(weights, BlockLayout(8, 16)).scales[1, 0])


def test_codes_take_whole_bytes() -> None:
    assert [BlockLayout(4, 16).packed_width(count) for count in (1, 2, 3)] == [1, 1, 2]
    assert BlockLayout(8, 16).packed_width(3) == 3
