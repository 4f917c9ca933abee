"""Causal masks by power of two: what they allow, which are made, and what they take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge._core import MaskCache

MIB = 2**20


def twin(first: int, count: int) -> np.ndarray:
    """What positions first ... first + count - 1 may see, in plain loops."""
    rows = np.zeros((count, first + count), bool)
    for row in range(count):
        for key in range(first + count):
            rows[row, key] = key <= first + row
    return rows


def twin_size(positions: int, smallest: int) -> int:
    size = 1
    while size < positions or size < smallest:
        size *= 2
    return size


@given(st.data())
@settings(max_examples=60)
def test_rows_are_causal_and_bytes_are_those_of_the_sizes_made(data: st.DataObject) -> None:
    largest = data.draw(st.integers(1, 300), "largest")
    smallest = data.draw(st.integers(1, 100), "smallest")
    cache = MaskCache(largest=largest, smallest=smallest)
    assert (cache.nbytes, cache.sizes) == (0, [])
    made: set[int] = set()
    for _ in range(data.draw(st.integers(1, 4), "chunks")):
        end = data.draw(st.integers(1, largest), "end")
        count = data.draw(st.integers(1, end), "count")
        made.add(twin_size(end, smallest))
        expected = twin(end - count, count)
        np.testing.assert_array_equal(cache.rows(end - count, count), expected)
        out = np.full((count, end + 3), 7.0, np.float32)
        cache.write_additive(end - count, out[:, :end])
        np.testing.assert_array_equal(out[:, :end], np.where(expected, 0.0, -np.inf))
        assert (out[:, end:] == 7).all()  # rows of the caller's buffer may be longer
        assert cache.sizes == sorted(made)
        assert cache.nbytes == sum(size * size for size in made)
    cache.free()
    assert (cache.nbytes, cache.sizes) == (0, [])


@pytest.mark.parametrize(
    ("positions", "size", "mib"),
    [
        (1, 4096, 16),
        (4096, 4096, 16),
        (4097, 8192, 64),
        (8192, 8192, 64),
        (16384, 16384, 256),
        (16385, 32768, 1024),
        (32768, 32768, 1024),
    ],
)
def test_sizes_as_documented(positions: int, size: int, mib: int) -> None:
    cache = MaskCache(largest=32768, smallest=4096)
    assert cache.size_for(positions) == size
    assert size * size == mib * MIB  # bool: a byte each
    assert 1 - mib / 1024 == {16: 0.984375, 64: 0.9375, 256: 0.75, 1024: 0}[mib]  # saved against 32768
    if mib > 64:
        return  # making a larger one here would prove no more: nbytes is the sum of size * size, see above
    np.testing.assert_array_equal(cache.rows(positions - 1, 1), np.ones((1, positions), bool))
    assert cache.nbytes == mib * MIB


def test_the_default_suits_a_device() -> None:
    cache = MaskCache(largest=1024)
    cache.rows(0, 10)
    assert cache.nbytes == 64 * 64


def test_rows_outlive_the_cache() -> None:
    cache = MaskCache(largest=64)
    rows = cache.rows(2, 3)
    cache.free()
    np.testing.assert_array_equal(rows, twin(2, 3))


@pytest.mark.parametrize(("first", "count"), [(0, 65), (60, 5), (2**40, 1)])
def test_more_positions_than_there_are(first: int, count: int) -> None:
    with pytest.raises(
        IndexError, match=f"a mask of {first + count} positions was asked for; it has 1 to 64"
    ):
        MaskCache(largest=50).rows(first, count)


@pytest.mark.parametrize(("first", "count"), [(0, 0), (-1, 4), (3, -1)])
def test_a_chunk_has_tokens(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="a chunk has at least one token"):
        MaskCache(largest=64).rows(first, count)


def test_buffers_that_do_not_fit_are_refused() -> None:
    cache = MaskCache(largest=64)
    for out in (np.zeros((2, 4), np.float32), np.zeros(3, np.float32)):
        with pytest.raises(ValueError, match=r"out must be \[count, first \+ count\]"):
            cache.write_additive(3, out)
    with pytest.raises(ValueError, match="C order"):
        cache.write_additive(1, np.zeros((3, 2), np.float32).T)
    with pytest.raises(TypeError):
        cache.write_additive(1, np.zeros((2, 3), np.float64))
    read_only = np.zeros((2, 3), np.float32)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="array is not writeable"):
        cache.write_additive(1, read_only)
    assert cache.nbytes == 0


def test_no_position_is_no_mask() -> None:
    for limits in ({"largest": 0}, {"largest": 64, "smallest": 0}):
        with pytest.raises(ValueError, match="a mask has at least one position"):
            MaskCache(**limits)
