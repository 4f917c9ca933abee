"""Philox4x32-10 against its authors' known answers, an independent twin, and numpy's wider relative."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge import _core_testing


def philox_twin(counter, key, *, bits, multipliers, increments):
    """Philox4xW-10 for any word width W; after Salmon et al., SC'11, section 4.3."""
    mask = (1 << bits) - 1
    c, k = list(counter), list(key)
    for _ in range(10):
        product0, product1 = multipliers[0] * c[0], multipliers[1] * c[2]
        c = [
            (product1 >> bits) ^ c[1] ^ k[0],
            product1 & mask,
            (product0 >> bits) ^ c[3] ^ k[1],
            product0 & mask,
        ]
        k = [(word + increment) & mask for word, increment in zip(k, increments, strict=True)]
    return c


PHILOX32 = {"bits": 32, "multipliers": (0xD2511F53, 0xCD9E8D57), "increments": (0x9E3779B9, 0xBB67AE85)}
PHILOX64 = {
    "bits": 64,
    "multipliers": (0xD2E7470EE14C6C93, 0xCA5A826395121157),
    "increments": (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B),
}


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers(counter, key, expected):
    """From Random123's tests/kat_vectors (D. E. Shaw Research), lines "philox4x32 10"."""
    assert _core_testing.philox4x32(counter, key) == expected


def test_twin_agrees_with_numpy_where_numpy_has_the_generator():
    """numpy has the 64-bit words only: that checks the twin's rounds, which the 32-bit words share."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        counter = [int(word) for word in rng.integers(0, 2**63, 4)]
        key = [int(word) for word in rng.integers(0, 2**63, 2)]
        generator = np.random.Philox(counter=np.array(counter, np.uint64), key=np.array(key, np.uint64))
        counter[0] += 1  # numpy counts before it draws
        assert generator.random_raw(4).tolist() == philox_twin(counter, key, **PHILOX64)


def test_core_agrees_with_the_twin():
    rng = np.random.default_rng(1)
    for _ in range(200):
        counter, key = rng.integers(0, 2**32, 4).tolist(), rng.integers(0, 2**32, 2).tolist()
        assert _core_testing.philox4x32(counter, key) == philox_twin(counter, key, **PHILOX32)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((0, 0, 0, 0), 0.8805201978886142),
        ((1, 0, 0, 0), 0.8946847163350924),
        ((7, 0, 5, 0), 0.33623943881565066),
        ((7, 3, 5, 0), 0.4349716486914954),
        ((2**64 - 1, 4, 100, 9), 0.7544049087120558),
    ],
)
def test_uniform_is_golden(place, expected):
    """Made by the twin: 53 bits of the first two words, counter (step, draw, stream, 0), key the seed."""
    seed, stream, step, draw = place
    words = philox_twin([step, draw, stream, 0], [seed & 0xFFFFFFFF, seed >> 32], **PHILOX32)
    assert _core_testing.uniform(*place) == ((words[1] << 32 | words[0]) >> 11) * 2.0**-53
    assert _core_testing.uniform(*place) == expected


def test_uniform_fills_the_unit_interval_evenly():
    draws = np.array([_core_testing.uniform(11, stream, step) for stream in range(4) for step in range(5000)])
    assert 0 <= draws.min() < draws.max() < 1
    counts = np.histogram(draws, bins=50, range=(0, 1))[0]
    chi_square = ((counts - 400) ** 2 / 400).sum()
    assert chi_square < 85.4  # 99.9th percentile with 49 degrees of freedom
