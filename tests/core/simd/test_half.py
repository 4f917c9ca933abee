"""float16 <-> float32 against NumPy's own conversions, every half and the floats where rounding turns."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge._core_testing import float_to_half, half_conversion_path, half_to_float

ALL_HALVES = np.arange(2**16, dtype=np.uint16)


def test_every_half_widens_exactly() -> None:
    with np.errstate(invalid="ignore"):  # ARM reports signalling NaNs that it converts
        ours, numpys = half_to_float(ALL_HALVES), ALL_HALVES.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(ours, numpys)  # NaN equals NaN here
    np.testing.assert_array_equal(np.signbit(ours), np.signbit(numpys))


@pytest.mark.parametrize("offset", [0, 1, 3], ids=["vector", "one-left", "three-left"])
def test_floats_at_and_beside_every_rounding_border(offset: int) -> None:
    finite = np.sort(ALL_HALVES.view(np.float16)[np.isfinite(ALL_HALVES.view(np.float16))].astype(np.float32))
    borders = (finite[:-1].astype(np.float64) + finite[1:]) / 2  # ties: exact in float32
    values = np.concatenate(
        [
            finite,
            borders.astype(np.float32),
            np.nextafter(borders.astype(np.float32), np.float32(np.inf)),
            np.nextafter(borders.astype(np.float32), np.float32(-np.inf)),
            np.array([np.inf, -np.inf, 65504, 65519.996, 65520, 1e30, 2**-25, 2**-26, 1e-45], np.float32),
        ]
    )[offset:]
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(float_to_half(values), expected)


def test_nan_stays_nan_and_shape_is_kept() -> None:
    values = np.full((3, 2, 5), np.nan, np.float32)
    halves = float_to_half(values)
    assert halves.shape == (3, 2, 5)
    assert np.isnan(halves.view(np.float16)).all()


def test_the_chosen_path_is_named() -> None:
    assert half_conversion_path() in {"f16c", "neon", "scalar"}


def test_other_dtypes_are_refused_rather_than_converted() -> None:
    with pytest.raises(TypeError):
        float_to_half(np.zeros(3, np.float64))
