"""Attention over a cache: every instruction set against the definition, and what the cache holds afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from sabiyarn_edge import _core
from tests.core.kernels import twins_attention as twin

DTYPES = ["float16", "float32", "int8"]
KERNELS = _core.attention_kernels()


@dataclass
class Cache:
    """keys and values [rows, heads, capacity, head_dim] full of numbers that nobody may touch, and int8's scales."""

    keys: np.ndarray
    values: np.ndarray
    key_scale: np.ndarray | None
    value_scale: np.ndarray | None

    def copy(self) -> Cache:
        return Cache(self.keys.copy(), self.values.copy(), self.key_scale, self.value_scale)

    def attention(self, qkv: np.ndarray, last: np.ndarray, kernels: str) -> np.ndarray:
        """As the core's, which changes this cache."""
        scales = {"key_scale": self.key_scale, "value_scale": self.value_scale}
        return _core.attention(qkv, self.keys, self.values, last, kernels=kernels, **scales)


def make_cache(rng: np.random.Generator, dtype: str, shape: tuple[int, int, int, int]) -> Cache:
    if dtype != "int8":
        keys, values = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        return Cache(keys, values, None, None)
    keys, values = (rng.integers(-128, 128, shape, np.int8) for _ in range(2))
    key_scale, value_scale = (rng.uniform(0.005, 0.03, shape[1::2]).astype(np.float32) for _ in range(2))
    return Cache(keys, values, key_scale, value_scale)


def make_qkv(rng: np.random.Generator, rows: int, tokens: int, heads: int, head_dim: int) -> np.ndarray:
    return rng.standard_normal((rows, tokens, 3, heads, head_dim)).astype(np.float32)


def check(cache: Cache, qkv: np.ndarray, last: np.ndarray, kernels: str) -> None:
    keys = twin.append(cache.keys, qkv[:, :, 1], last, cache.key_scale)
    values = twin.append(cache.values, qkv[:, :, 2], last, cache.value_scale)
    expected, slack = twin.attend(qkv[:, :, 0], keys, values, last, cache.key_scale, cache.value_scale)
    result = cache.attention(qkv, last, kernels)
    np.testing.assert_array_equal(cache.keys, keys)  # storage is exact, and the other slots are as they were
    np.testing.assert_array_equal(cache.values, values)
    assert result.dtype == np.float32
    excess = np.abs(result - expected) - slack
    assert excess.max() <= 0, (excess.max(), np.unravel_index(excess.argmax(), excess.shape))


def test_the_last_instruction_set_runs_everywhere() -> None:
    assert KERNELS[-1] == "plain"


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [8, 16, 24, 32, 40, 64, 80, 128])
def test_one_and_many_tokens(kernels: str, dtype: str, head_dim: int) -> None:
    rng = np.random.default_rng(head_dim)
    for tokens in (1, 3, 4, 9):
        cache = make_cache(rng, dtype, (1, 2, 40, head_dim))
        last = np.array([rng.integers(tokens - 1, 40)], np.int32)
        check(cache, make_qkv(rng, 1, tokens, 2, head_dim), last, kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 7, 8, 9, 63, 64, 65, 128, 131])
def test_lengths_around_the_tiles_of_64_keys(kernels: str, dtype: str, length: int) -> None:
    rng = np.random.default_rng(length)
    for tokens in {1, min(2, length), min(5, length), min(64, length), min(65, length), length}:
        for capacity in (length, length + 5):
            cache = make_cache(rng, dtype, (1, 1, capacity, 16))
            check(cache, make_qkv(rng, 1, tokens, 1, 16), np.array([length - 1], np.int32), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 3])
def test_rows_of_different_lengths(kernels: str, dtype: str, tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    cache = make_cache(rng, dtype, (4, 3, 150, 32))
    check(cache, make_qkv(rng, 4, tokens, 3, 32), np.array([tokens - 1, 149, 63, 70], np.int32), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("size", [0.0, 1e-20, 30.0, 1000.0], ids=str)
@pytest.mark.parametrize("tokens", [1, 4])
def test_small_and_large_scores(kernels: str, size: float, tokens: int) -> None:
    """At 1000 some scores are thousands apart: all weights but the largest are 0."""
    rng = np.random.default_rng(9)
    qkv = make_qkv(rng, 1, tokens, 2, 64)
    qkv[:, :, 0] *= size
    check(make_cache(rng, "float32", (1, 2, 200, 64)), qkv, np.array([180], np.int32), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_that_grow_tile_by_tile(kernels: str, dtype: str) -> None:
    """What was summed is rescaled by every tile."""
    rng = np.random.default_rng(10)
    cache = make_cache(rng, dtype, (1, 1, 260, 8))
    cache.keys[...] = np.linspace(0, 100, 260).astype(cache.keys.dtype)[:, None]
    qkv = make_qkv(rng, 1, 5, 1, 8)
    qkv[:, :, 0] = 1.0
    check(cache, qkv, np.array([255], np.int32), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_does_not_depend_on_how_a_text_is_cut(kernels: str, dtype: str) -> None:
    rng = np.random.default_rng(11)
    empty, qkv = make_cache(rng, dtype, (2, 2, 160, 16)), make_qkv(rng, 2, 150, 2, 16)

    def cut(size: int) -> tuple[np.ndarray, Cache]:
        cache, parts = empty.copy(), []
        for begin in range(0, 150, size):
            part = np.ascontiguousarray(qkv[:, begin : begin + size])
            last = np.full(2, begin + part.shape[1] - 1, np.int32)
            parts.append(cache.attention(part, last, kernels))
        return np.concatenate(parts, axis=1), cache

    few, many = [cut(size) for size in (1, 2, 3)], [cut(size) for size in (5, 6, 50, 75, 150)]
    for _, cache in few + many:
        np.testing.assert_array_equal(cache.keys, few[0][1].keys)
        np.testing.assert_array_equal(cache.values, few[0][1].values)
    # Within a way of computing them the sums have one order; the two ways are as near as the twin allows.
    for same in (few, many):
        for result, _ in same:
            np.testing.assert_array_equal(result, same[0][0])
    np.testing.assert_allclose(few[0][0], many[0][0], atol=2e-5)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_row_does_not_depend_on_its_neighbours(kernels: str) -> None:
    rng = np.random.default_rng(12)
    cache, qkv = make_cache(rng, "float16", (3, 2, 90, 24)), make_qkv(rng, 3, 4, 2, 24)
    last = np.array([80, 3, 40], np.int32)
    alone = [
        Cache(cache.keys[row : row + 1].copy(), cache.values[row : row + 1].copy(), None, None).attention(
            qkv[row : row + 1], last[row : row + 1], kernels
        )
        for row in range(3)
    ]
    np.testing.assert_array_equal(cache.attention(qkv, last, kernels), np.concatenate(alone))


@pytest.mark.parametrize("kernels", KERNELS)
def test_slots_behind_the_newest_may_hold_anything(kernels: str) -> None:
    rng = np.random.default_rng(13)
    clean, qkv = make_cache(rng, "float32", (1, 1, 100, 16)), make_qkv(rng, 1, 6, 1, 16)
    dirty = clean.copy()
    dirty.keys[:, :, 71:], dirty.values[:, :, 71:] = np.nan, np.inf
    last = np.array([70], np.int32)
    np.testing.assert_array_equal(dirty.attention(qkv, last, kernels), clean.attention(qkv, last, kernels))


def test_int8_is_rounded_to_even_and_clipped() -> None:
    scale = np.ones((1, 8), np.float32)
    for kernels in KERNELS:
        keys, values = np.zeros((1, 1, 1, 8), np.int8), np.zeros((1, 1, 1, 8), np.int8)
        qkv = np.zeros((1, 1, 3, 1, 8), np.float32)
        qkv[0, 0, 1, 0] = [0.5, 1.5, -0.5, -2.5, 127.4, 300, -128.6, -1e9]
        qkv[0, 0, 2, 0] = [0.49, -0.51, 2.5, 1e30, -1e30, 0, 126.5, -127.5]
        last = np.zeros(1, np.int32)
        _core.attention(qkv, keys, values, last, kernels=kernels, key_scale=scale, value_scale=scale)
        assert keys.ravel().tolist() == [0, 2, 0, -2, 127, 127, -128, -128]
        assert values.ravel().tolist() == [0, -1, 2, 127, -128, 0, 126, -128]


def test_shapes_that_do_not_fit_are_named() -> None:
    cache = make_cache(np.random.default_rng(0), "float16", (2, 3, 20, 16))
    qkv, last = np.zeros((2, 4, 3, 3, 16), np.float32), np.array([3, 19], np.int32)

    def refused(message: str, **changed: object) -> None:
        arguments = {"qkv": qkv, "keys": cache.keys, "values": cache.values, "last": last, "kernels": "plain"}
        with pytest.raises(ValueError, match=message):
            _core.attention(**(arguments | changed))

    refused(r"keys are float64; a cache is float16, float32 or int8", keys=cache.keys.astype(float))
    refused(r"keys have shape \[2, 3, 20, 12\]; it must be", keys=np.zeros((2, 3, 20, 12), np.float16))
    refused(r"values have shape \[2, 3, 19, 16\]; their shape", values=np.zeros((2, 3, 19, 16), np.float16))
    refused("their shape and dtype must be those of the keys", values=cache.values.astype(np.float32))
    refused(r"qkv has shape \[1, 4, 3, 3, 16\]; it must be \[rows, tokens, 3, heads, head_dim\]", qkv=qkv[:1])
    refused(r"last has shape \[1\]; it must be \[2\]", last=last[:1])
    refused(
        "last of row 1 is 20; with 4 new tokens and a capacity of 20 it must be 3 to 19",
        last=np.array([3, 20], np.int32),
    )
    refused("last of row 0 is 2; with 4 new tokens", last=np.array([2, 19], np.int32))
    refused("kernels is 'sse9'; this CPU has '.*plain'", kernels="sse9")
    refused("key_scale is given, but only an int8 cache", key_scale=np.ones((3, 16), np.float32))
    refused("in C order", keys=np.asfortranarray(cache.keys))
    bytes_cache = {"keys": np.zeros((2, 3, 20, 16), np.int8), "values": np.zeros((2, 3, 20, 16), np.int8)}
    refused("key_scale is missing: an int8 cache needs it", **bytes_cache)
    refused(
        r"value_scale has shape \[3, 8\]; it must be \[3, 16\]",
        **bytes_cache,
        key_scale=np.ones((3, 16), np.float32),
        value_scale=np.ones((3, 8), np.float32),
    )


def test_a_cache_that_cannot_be_written_is_refused() -> None:
    cache = make_cache(np.random.default_rng(0), "float16", (1, 1, 4, 8))
    cache.keys.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        cache.attention(np.zeros((1, 1, 3, 1, 8), np.float32), np.zeros(1, np.int32), "plain")
