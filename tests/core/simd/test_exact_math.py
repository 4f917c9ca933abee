"""exp, log and pow against float64 and longer; their bits against committed digests, the same on every platform."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from sabiyarn_edge import _core_testing

FLOATS = np.arange(-87.25, 88, 2.0**-13, dtype=np.float32)  # multiples of a power of two: exact everywhere
DOUBLES = np.arange(-700, 700, 2.0**-7)


def relative_error(values, exact):
    return float(np.max(np.abs(values - exact) / np.abs(exact)))


def test_exp_float_is_within_1_1_units_in_the_last_place():
    exact = np.exp(FLOATS.astype(np.float64))
    unit = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert np.max(np.abs(_core_testing.exp_float(FLOATS).astype(np.float64) - exact) / unit) < 1.1


def test_exp_float_is_zero_where_the_result_would_be_subnormal():
    low = np.array([-87.31, -100, -1e30, -np.inf], np.float32)
    assert _core_testing.exp_float(low).tolist() == [0, 0, 0, 0]
    assert _core_testing.exp_float(np.float32(-87.3)) > 0
    assert _core_testing.exp_float(np.float32(0)) == 1


@pytest.mark.parametrize(
    ("function", "exact"),
    [(_core_testing.exp_double, np.exp), (_core_testing.log_double, np.log)],
    ids=["exp", "log"],
)
def test_doubles_are_within_5e_16(function, exact):
    values = (
        DOUBLES
        if function is _core_testing.exp_double
        else np.concatenate([np.exp(DOUBLES), 1 + DOUBLES / 2000])
    )
    values = values[values != 1]
    assert relative_error(function(values), exact(values.astype(np.longdouble))) < 5e-16


def test_pow():
    lengths, penalties = np.meshgrid(np.arange(2.0, 4000), [-2.0, -0.5, 0.3, 1.0, 1.7, 3.0])
    exact = lengths.astype(np.longdouble) ** penalties.astype(np.longdouble)
    assert relative_error(_core_testing.pow_double(lengths, penalties), exact) < 3e-14
    # A score is divided by the power rounded to float32. There Python's ** and ours agree.
    python = (lengths**penalties).astype(np.float32)
    np.testing.assert_array_equal(_core_testing.pow_double(lengths, penalties).astype(np.float32), python)


def test_pow_of_special_values():
    assert _core_testing.pow_double(7.0, 0.0) == 1
    assert _core_testing.pow_double(1.0, -3.5) == 1
    assert np.float32(_core_testing.pow_double(4095.0, 1.0)) == 4095


@pytest.mark.parametrize(
    ("values", "digest"),
    [
        (lambda: _core_testing.exp_float(FLOATS), 0x5869268D),
        (lambda: _core_testing.exp_double(DOUBLES), 0x80DEBB9F),
        (lambda: _core_testing.log_double(1 + np.arange(2.0**16) / 64), 0x62226F2F),
    ],
    ids=["exp_float", "exp_double", "log_double"],
)
def test_bits_are_the_same_on_every_platform(values, digest):
    """CRC-32 of the little-endian results, made by this code on x86-64."""
    array = values()
    assert zlib.crc32(array.astype(array.dtype.newbyteorder("<")).tobytes()) == digest
