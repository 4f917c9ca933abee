"""Attention over a cache: every instruction set against the definition, bit for bit however a text is cut."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge import _core_testing
from tests.core.kernels import twins_attention as twin

DTYPES = ["float16", "float32", "int8"]
KERNELS = _core_testing.attention_kernels()


@dataclass
class Cache:
    """Keys and values as KvCache stores them, and int8's scales. What nobody wrote is NaN, or 99 in int8."""

    keys: np.ndarray
    values: np.ndarray
    scales: dict[str, np.ndarray]
    window: int
    num_sinks: int

    @classmethod
    def make(
        cls, dtype: str, rows: int, heads: int, capacity: int, head_dim: int, window: int, num_sinks: int = 0
    ) -> Cache:
        rng = np.random.default_rng(capacity)
        tiles, flat = (rows, heads, capacity // 16, head_dim, 16), (rows, heads, capacity, head_dim)
        if dtype != "int8":
            return cls(np.full(tiles, np.nan, dtype), np.full(flat, np.nan, dtype), {}, window, num_sinks)
        scales = {
            name: rng.uniform(0.005, 0.03, (heads, head_dim)).astype(np.float32)
            for name in ("key_scale", "value_scale")
        }
        return cls(np.full(tiles, 99, np.int8), np.full(flat, 99, np.int8), scales, window, num_sinks)

    @property
    def capacity(self) -> int:
        return self.values.shape[2]

    def max_append(self, past: int) -> int:
        return max(self.capacity - past, self.capacity - self.window + 1)

    def oldest(self, total: int) -> int:
        return max(total - (self.capacity - self.num_sinks), 0) if total > self.capacity else 0

    def run(
        self,
        parts: list[tuple[int, int, np.ndarray]],
        kernels: str,
        masks: dict[int, np.ndarray] | None = None,
        shared: dict[int, int] | None = None,
    ) -> list[np.ndarray]:
        """Run (row, past, qkv [tokens, 3, heads, head_dim]) together.

        masks: [tokens, total], by row. shared: slots that a row has in common with the one before it, by row.
        """
        segments, mask = [], np.zeros(0, np.float32)
        for row, past, qkv in parts:
            total, mask_at = past + len(qkv), -1 - (shared or {}).get(row, 0)
            if masks and row in masks:
                mask_at, mask = len(mask), np.concatenate([mask, masks[row].ravel()])
            segments.append((row, len(qkv), total, self.oldest(total), mask_at))
        result = _core_testing.attention(
            np.concatenate([qkv for _, _, qkv in parts]),
            self.keys,
            self.values,
            np.array(segments, np.int64),
            window=self.window,
            num_sinks=self.num_sinks,
            kernels=kernels,
            mask=mask,
            **self.scales,
        )
        assert result.dtype == np.float32
        return np.split(result, np.cumsum([len(qkv) for _, _, qkv in parts])[:-1])


def make_qkv(seed: int, tokens: int, heads: int, head_dim: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((tokens, 3, heads, head_dim)).astype(np.float32)


def run_in_chunks(cache: Cache, row: int, qkv: np.ndarray, chunk: int, kernels: str) -> np.ndarray:
    """A text in chunks of `chunk` tokens, or of as many as the ring takes."""
    outputs, past = [], 0
    while past < len(qkv):
        part = qkv[past : past + min(chunk, cache.max_append(past))]
        outputs += cache.run([(row, past, part)], kernels)
        past += len(part)
    return np.concatenate(outputs)


def check(cache: Cache, row: int, qkv: np.ndarray, found: np.ndarray, mask: np.ndarray | None = None) -> None:
    """The results of a text's last tokens, and that the cache holds it."""
    total, heads, head_dim = len(qkv), qkv.shape[2], qkv.shape[3]
    sides = [
        twin.stored(qkv[:, 1 + side], cache.values.dtype, cache.scales.get(f"{name}_scale"))
        for side, name in enumerate(("key", "value"))
    ]
    held = [p for p in range(total) if p < cache.num_sinks or p >= cache.oldest(total)]
    slots = [twin.slot_of(p, cache.num_sinks, cache.capacity) for p in held]
    for stored, buffer in zip(sides, (twin.unweave(cache.keys), cache.values), strict=True):
        np.testing.assert_array_equal(buffer[row][:, slots], stored[held].swapaxes(0, 1))
    keys, values = (
        side.astype(float) * cache.scales.get(f"{name}_scale", np.float32(1)).astype(float)
        for side, name in zip(sides, ("key", "value"), strict=True)
    )
    positions = np.arange(total - len(found), total)
    oldest = 0 if mask is None else cache.oldest(total)
    seen = twin.sees(positions, total, cache.window, cache.num_sinks, oldest, ahead=mask is not None)
    added = np.where(seen, 0.0 if mask is None else mask, -np.inf)
    for head in range(heads):
        queries = qkv[positions, 0, head]
        if cache.scales:
            queries = twin.rounded_queries(queries, cache.scales["key_scale"][head])
        expected, slack = twin.attend(queries, keys[:, head], values[:, head], added)
        assert found[:, head].shape == expected.shape == (len(found), head_dim)
        excess = np.abs(found[:, head] - expected) - slack
        assert excess.max() <= 0, (head, excess.max(), np.unravel_index(excess.argmax(), excess.shape))


def test_the_last_instruction_set_runs_everywhere() -> None:
    assert KERNELS[-1] == "plain"


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [8, 16, 24, 32, 40, 64, 80, 128])
def test_one_and_many_tokens(kernels: str, dtype: str, head_dim: int) -> None:
    qkv = make_qkv(head_dim, 90, 2, head_dim)
    for tokens in (1, 2, 7, 16, 33, 90):
        cache = Cache.make(dtype, 1, 2, 96, head_dim, window=96)
        for past in {0, 90 - tokens}:
            run_in_chunks(cache, 0, qkv[:past], 64, kernels) if past else None
            found = cache.run([(0, past, qkv[past : past + tokens])], kernels)[0]
            check(cache, 0, qkv[: past + tokens], found)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 15, 16, 17, 63, 64, 65, 128, 131])
def test_lengths_around_the_tiles(kernels: str, dtype: str, length: int) -> None:
    """Behind the capacity nothing may be read: the sanitizers see it, and NaN is there."""
    cache = Cache.make(dtype, 1, 1, (length + 15) // 16 * 16, 16, window=256)
    qkv = make_qkv(length, length, 1, 16)
    check(cache, 0, qkv, run_in_chunks(cache, 0, qkv, 64, kernels))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("window", "num_sinks", "capacity"),
    [(300, 0, 320), (20, 0, 64), (20, 5, 64), (64, 0, 64), (64, 62, 64), (100, 4, 192), (128, 70, 256)],
)
def test_windows_and_rings_that_wrap(
    kernels: str, dtype: str, window: int, num_sinks: int, capacity: int
) -> None:
    qkv = make_qkv(window, 300, 2, 16)
    for chunk in (1, 37, 300):
        cache = Cache.make(dtype, 1, 2, capacity, 16, window, num_sinks)
        check(cache, 0, qkv, run_in_chunks(cache, 0, qkv, chunk, kernels))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "num_sinks", "capacity"), [(400, 0, 400), (100, 4, 192), (90, 0, 128)])
def test_bits_do_not_depend_on_the_run(
    kernels: str, dtype: str, window: int, num_sinks: int, capacity: int
) -> None:
    """Chunks of any size, alone or among 15 rows of other lengths."""
    rows, text = 16, 330
    qkv = [make_qkv(row, text, 2, 24) for row in range(rows)]
    alone = Cache.make(dtype, rows, 2, capacity, 24, window, num_sinks)
    expected = [run_in_chunks(alone, row, qkv[row], 1, kernels) for row in range(rows)]
    for chunk in (3, 7, 64, 256):
        cache = Cache.make(dtype, 1, 2, capacity, 24, window, num_sinks)
        found = run_in_chunks(cache, 0, qkv[0], chunk, kernels)
        np.testing.assert_array_equal(found.view(np.int32), expected[0].view(np.int32))
        np.testing.assert_array_equal(cache.keys, alone.keys[:1])
        np.testing.assert_array_equal(cache.values, alone.values[:1])
    together = Cache.make(dtype, rows, 2, capacity, 24, window, num_sinks)
    rng, past = np.random.default_rng(1), [0] * rows
    outputs: list[list[np.ndarray]] = [[] for _ in range(rows)]
    while any(done < text for done in past):
        parts = []
        for row in rng.permutation(rows):
            most = min(text - past[row], together.max_append(past[row]))
            if most == 0 or rng.random() < 0.2:
                continue
            count = int(rng.choice([1, 1, rng.integers(1, most + 1)]))
            parts.append((int(row), past[row], qkv[row][past[row] : past[row] + count]))
        if not parts:
            continue
        for (row, _, part), found in zip(parts, together.run(parts, kernels), strict=True):
            outputs[row].append(found)
            past[row] += len(part)
    for row in range(rows):
        found = np.concatenate(outputs[row])
        np.testing.assert_array_equal(found.view(np.int32), expected[row].view(np.int32))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("window", "num_sinks", "capacity", "past"), [(400, 0, 448, 300), (150, 4, 192, 170), (100, 10, 256, 230)]
)
def test_slots_that_rows_share_are_read_once(
    kernels: str, dtype: str, window: int, num_sinks: int, capacity: int, past: int
) -> None:
    """Rows of a tree of forks give the bits that each gives alone, with nothing in the copies of what they share."""
    rng = np.random.default_rng(past)
    shared = {1: past, 2: past - 30, 4: past, 5: 64, 6: past - 64, 7: past - 1, 8: past}  # 3 begins anew
    texts = [make_qkv(0, past, 2, 24)]
    for row in range(1, 9):
        texts.append(np.concatenate([texts[-1][: shared.get(row, 0)], make_qkv(row, past, 2, 24)])[:past])
    cache = Cache.make(dtype, 9, 2, capacity, 24, window, num_sinks)
    for row, text in enumerate(texts):
        run_in_chunks(cache, row, text, 64, kernels)
    for new in (1, 2, 20):
        parts = [(row, past, make_qkv(row + 9, int(rng.integers(1, new + 1)), 2, 24)) for row in range(9)]
        alone = [cache.run([part], kernels)[0] for part in parts]
        bare = Cache(cache.keys.copy(), cache.values.copy(), cache.scales, window, num_sinks)
        for row in (1, 2, 4, 8):  # with at least half of their slots
            tiles = shared[row] // 64 * 64
            for buffer in (bare.keys[row, :, : tiles // 16], bare.values[row, :, :tiles]):
                buffer[:] = 99 if dtype == "int8" else np.nan
        for found, expected in zip(bare.run(parts, kernels, shared=shared), alone, strict=True):
            np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "num_sinks", "capacity"), [(200, 0, 208), (60, 4, 128)])
def test_masks(kernels: str, dtype: str, window: int, num_sinks: int, capacity: int) -> None:
    """Over positions, ahead too; beside a causal segment; the window decides with the mask."""
    rng = np.random.default_rng(window)
    for past, tokens in [(0, 1), (0, 50), (120, 1), (120, 9), (120, 68)]:
        qkv = [make_qkv(row, past + tokens, 2, 16) for row in range(3)]
        cache = Cache.make(dtype, 3, 2, capacity, 16, window, num_sinks)
        for row in range(3):
            if past:
                run_in_chunks(cache, row, qkv[row][:past], 64, kernels)
        masks = {}
        for row in (0, 2):
            mask = rng.normal(0, 2, (tokens, past + tokens)).astype(np.float32)
            mask[rng.random(mask.shape) < 0.3] = -np.inf
            masks[row] = mask
        masks[2][tokens // 2] = -np.inf  # a token that sees nothing
        parts = [(row, past, qkv[row][past:]) for row in range(3)]
        found = cache.run(parts, kernels, masks)
        for row in range(3):
            check(cache, row, qkv[row], found[row], masks.get(row))
        assert not found[2][tokens // 2].any()


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_causal_mask_is_the_causal_path(kernels: str) -> None:
    qkv = make_qkv(3, 150, 2, 16)
    causal = Cache.make("float16", 1, 2, 160, 16, window=160)
    expected = run_in_chunks(causal, 0, qkv, 150, kernels)
    mask = np.where(np.tri(150, dtype=bool), np.float32(0), np.float32(-np.inf)).astype(np.float32)
    masked = Cache.make("float16", 1, 2, 160, 16, window=160)
    found = masked.run([(0, 0, qkv)], kernels, {0: mask})[0]
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("kernels", KERNELS)
def test_evicted_positions_are_not_seen(kernels: str) -> None:
    """After a truncation a ring holds less than its slots; `oldest` says from where on."""
    qkv = make_qkv(4, 40, 1, 8)
    cache = Cache.make("float32", 1, 1, 64, 8, window=64)
    run_in_chunks(cache, 0, qkv[:39], 64, kernels)
    last = np.ascontiguousarray(qkv[39:])
    segment = np.array([[0, 1, 40, 30, -1]])
    found = _core_testing.attention(
        last, cache.keys, cache.values, segment, window=64, num_sinks=2, kernels=kernels
    )
    added = np.where(twin.sees(np.array([39]), 40, 64, 2, 30, ahead=False), 0.0, -np.inf)
    expected, slack = twin.attend(qkv[39:, 0, 0], qkv[:, 1, 0], qkv[:, 2, 0], added)
    assert (np.abs(found[:, 0] - expected) <= slack).all()
    segment[0, 3] = 40
    found = _core_testing.attention(
        last, cache.keys, cache.values, segment, window=64, num_sinks=0, kernels=kernels
    )
    assert not found.any()  # nothing at all is seen


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("size", [0.0, 1e-20, 30.0, 1000.0], ids=str)
@pytest.mark.parametrize("tokens", [1, 4])
def test_small_and_large_scores(kernels: str, size: float, tokens: int) -> None:
    """At 1000 some scores are thousands apart: all weights but the largest are 0."""
    qkv = make_qkv(9, 181, 2, 64)
    qkv[:, 0] *= np.float32(size)
    cache = Cache.make("float32", 1, 2, 192, 64, window=192)
    run_in_chunks(cache, 0, qkv[:-tokens], 64, kernels)
    check(cache, 0, qkv, cache.run([(0, 181 - tokens, qkv[-tokens:])], kernels)[0])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_that_grow_tile_by_tile(kernels: str, dtype: str) -> None:
    """What was summed is rescaled by every tile."""
    qkv = make_qkv(10, 256, 1, 8)
    qkv[:, 0], qkv[:, 1] = 1.0, np.linspace(0, 3, 256, dtype=np.float32)[:, None, None]
    cache = Cache.make(dtype, 1, 1, 256, 8, window=256)
    check(cache, 0, qkv, run_in_chunks(cache, 0, qkv, 5, kernels))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_a_number_is_not_hidden(kernels: str, dtype: str, value: float) -> None:
    qkv = make_qkv(5, 3, 1, 8)
    qkv[2, 0, 0, 5] = value
    cache = Cache.make(dtype, 1, 1, 16, 8, window=16)
    found = cache.run([(0, 0, qkv)], kernels)[0]
    assert np.isfinite(found[:2]).all() and np.isnan(found[2]).all()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("head_dim", [64, 1024, 4096])
def test_integer_scores_at_their_largest(kernels: str, head_dim: int) -> None:
    """All codes are the largest, all keys -128 or 127: a sum that did not fit would have another sign."""
    scale = np.ones((1, head_dim), np.float32)
    for key in (-128.0, 127.0):
        cache = Cache.make("int8", 1, 1, 16, head_dim, window=16)
        cache.scales = {"key_scale": scale, "value_scale": scale}
        qkv = np.zeros((2, 3, 1, head_dim), np.float32)
        qkv[:, 0] = 0.001 / head_dim**0.5  # the scores are -0.128 and 0.127
        qkv[1, 1], qkv[:, 2] = key, [[[3.0]], [[-5.0]]]
        found = cache.run([(0, 0, qkv)], kernels)[0][1, 0]
        weight = 1 / (1 + np.exp(-key / 1000))
        # Codes and unit are exact to 1 / 16383 and less.
        np.testing.assert_allclose(found, 3 + weight * -8, rtol=1e-4)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-36, 1e-31, 1e-20, 1e30])
def test_small_and_large_queries_of_an_int8_cache(kernels: str, size: float) -> None:
    qkv = make_qkv(11, 70, 1, 24)
    qkv[:, 0] = (qkv[:, 0] * size).astype(np.float32)
    qkv[:, 1] *= np.float32(min(1.0, 1 / size)) if size else np.float32(1)
    cache = Cache.make("int8", 1, 1, 80, 24, window=80)
    if size > 1:
        cache.scales["key_scale"] = (cache.scales["key_scale"] / size).astype(np.float32)
    check(cache, 0, qkv, run_in_chunks(cache, 0, qkv, 33, kernels))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("side", [1, 2])
@pytest.mark.parametrize(
    ("value", "holds"), [(65519.0, True), (65520.0, False), (-1e30, False), (np.inf, False)]
)
def test_what_float16_cannot_hold_is_not_hidden(kernels: str, side: int, value: float, holds: bool) -> None:
    """An infinite key would have no weight, or all of it; the texts of other rows are as they are."""
    qkv = make_qkv(6, 20, 1, 8)
    qkv[3, side, 0, 2] = value
    other = make_qkv(7, 20, 1, 8)
    cache = Cache.make("float16", 2, 1, 32, 8, window=32)
    found = cache.run([(0, 0, qkv), (1, 0, other)], kernels)
    values = cache.values[0, 0, :20]
    assert np.isfinite(values).all(axis=1).tolist() == [token != 3 or holds for token in range(20)]
    assert np.isnan(values[3]).all() != holds
    assert np.isfinite(found[0]).all() == holds
    if not holds:  # every token that sees it; within a run it may spread to those before
        assert np.isnan(found[0][3:]).any(axis=(1, 2)).all()
    check(cache, 1, other, found[1])


def test_int8_is_rounded_to_even_and_clipped() -> None:
    scale = np.ones((1, 8), np.float32)
    for kernels in KERNELS:
        keys, values = np.zeros((1, 1, 1, 8, 16), np.int8), np.zeros((1, 1, 16, 8), np.int8)
        qkv = np.zeros((1, 3, 1, 8), np.float32)
        qkv[0, 1, 0] = [0.5, 1.5, -0.5, -2.5, 127.4, 300, -128.6, -1e9]
        qkv[0, 2, 0] = [0.49, -0.51, 2.5, 1e30, -1e30, 0, 126.5, -127.5]
        scales = {"key_scale": scale, "value_scale": scale}
        _core_testing.attention(
            qkv, keys, values, np.array([[0, 1, 1, 0, -1]]), window=2, kernels=kernels, **scales
        )
        assert keys[0, 0, 0, :, 0].tolist() == [0, 2, 0, -2, 127, 127, -128, -128]
        assert values[0, 0, 0].tolist() == [0, -1, 2, 127, -128, 0, 126, -128]
        assert not keys[..., 1:].any() and not values[:, :, 1:].any()


# --- refusals


@dataclass
class Call:
    """A call that is right: two of three rows with two heads in 32 slots, 4 and 1 tokens, the second one's masked."""

    arguments: dict[str, object] = field(
        default_factory=lambda: {
            "qkv": np.zeros((5, 3, 2, 16), np.float32),
            "keys": np.full((3, 2, 2, 16, 16), 7, np.float16),
            "values": np.full((3, 2, 32, 16), 7, np.float16),
            "segments": np.array([[2, 4, 20, 0, -1], [0, 1, 31, 0, 0]], np.int64),
            "window": 24,
            "mask": np.zeros(31, np.float32),
            "kernels": "plain",
        }
    )

    def refused(self, message: str, **changed: object) -> None:
        with pytest.raises(ValueError, match=message):
            _core_testing.attention(**(self.arguments | changed))
        assert (self.arguments["keys"] == 7).all() and (self.arguments["values"] == 7).all()

    def refused_segment(self, message: str, segment: int, **fields: int) -> None:
        segments = self.arguments["segments"].copy()
        for name, value in fields.items():
            segments[segment, ["row", "num_tokens", "total", "oldest", "mask_at"].index(name)] = value
        self.refused(message, segments=segments)


def test_the_call_of_the_refusals_is_right() -> None:
    assert not _core_testing.attention(**Call().arguments)[:0].any()


def test_shapes_that_do_not_fit_are_named() -> None:
    call = Call()
    keys, values = call.arguments["keys"], call.arguments["values"]
    call.refused(r"keys are float64; a cache is float16, float32 or int8", keys=keys.astype(float))
    call.refused(
        r"keys have shape \[3, 2, 2, 16, 8\]; it must be", keys=np.zeros((3, 2, 2, 16, 8), np.float16)
    )
    call.refused(
        r"values have shape \[3, 2, 16, 16\]; it must be", values=np.zeros((3, 2, 16, 16), np.float16)
    )
    call.refused("of the keys, and their dtype", values=values.astype(np.float32))
    call.refused(r"qkv has shape \[5, 3, 1, 16\]; it must be", qkv=np.zeros((5, 3, 1, 16), np.float32))
    call.refused(r"segments have shape \[2, 4\]; it must be", segments=np.zeros((2, 4), np.int64))
    call.refused("kernels is 'sse9'; this CPU has '.*plain'", kernels="sse9")
    call.refused("key_scale is given, but only an int8 cache", key_scale=np.ones((2, 16), np.float32))
    call.refused("in C order", keys=np.asfortranarray(keys))
    narrow = {"qkv": np.zeros((5, 3, 2, 12), np.float32), "keys": np.zeros((3, 2, 2, 12, 16), np.float16)}
    call.refused("head_dim is 12; it must be", **narrow, values=np.zeros((3, 2, 32, 12), np.float16))
    in_bytes = {"keys": np.zeros(keys.shape, np.int8), "values": np.zeros(values.shape, np.int8)}
    call.refused("key_scale is missing: an int8 cache needs it", **in_bytes)
    scale = np.ones((2, 16), np.float32)
    call.refused(r"value_scale has shape", **in_bytes, key_scale=scale, value_scale=scale[:, :8].copy())


MOST = 2**63 - 1


def test_segments_that_do_not_fit_are_named() -> None:
    call = Call()
    call.refused_segment("row of segment 0 is 3; it must be 0 to 2", 0, row=3)
    call.refused_segment("row of segment 1 is -1; it must be 0 to 2", 1, row=-1)
    call.refused_segment("row 2 is there twice", 1, row=2)
    for count in (0, -1, -MOST - 1, MOST, 6):
        call.refused_segment(
            f"num_tokens of segment 0 is {count}; it must be at least 1", 0, num_tokens=count
        )
    call.refused_segment("their num_tokens are 4 together; the run has 5", 0, num_tokens=3)
    for total in (3, 2**31, MOST, -5):
        call.refused_segment(
            rf"total of segment 0 is {total}; it must be num_tokens \(4\) to", 0, total=total
        )
    for oldest in (-1, 21, MOST):
        call.refused_segment(f"oldest of segment 0 is {oldest}; it must be 0 to 20", 0, oldest=oldest)
    # 32 slots and a window of 24: a full ring takes 9 tokens at once.
    many = {
        "qkv": np.zeros((11, 3, 2, 16), np.float32),
        "segments": np.array([[2, 10, 50, 0, -1], [0, 1, 31, 0, 0]]),
    }
    call.refused("num_tokens of segment 0 is 10; it must be at most 9 behind 40 tokens", **many)
    call.refused(
        "num_tokens of segment 1 is 1; it must be at most 0 behind 32",
        **many | {"window": 33, "segments": np.array([[2, 10, 20, 0, -1], [0, 1, 33, 0, -1]])},
    )
    for mask_at in (1, 31, 32, MOST):
        call.refused_segment(f"mask_at of segment 1 is {mask_at}; it must be -1", 1, mask_at=mask_at)
    for segment, most in [(0, 0), (1, 16)]:  # the first has none before it, which held 16 tokens
        for mask_at in (-2 - most, -MOST - 1):
            message = (
                f"mask_at of segment {segment} is {mask_at}; it must be at least {-1 - most}, as it can share"
            )
            call.refused_segment(message, segment, mask_at=mask_at)
    call.refused("mask_at of segment 1 is 0", mask=None)
    for window, sinks in [(1, 0), (0, 0), (24, 23), (24, -1), (MOST, 0), (2**31, 0), (24, MOST)]:
        call.refused(f"window is {window} with {sinks} sinks", window=window, num_sinks=sinks)


def test_a_run_of_no_tokens() -> None:
    call = Call()
    nothing = {"qkv": np.zeros((0, 3, 2, 16), np.float32), "segments": np.zeros((0, 5), np.int64)}
    assert _core_testing.attention(**(call.arguments | nothing)).shape == (0, 2, 16)


def test_a_cache_that_cannot_be_written_is_refused() -> None:
    call = Call()
    call.arguments["keys"].flags.writeable = False
    call.refused("not writeable")


@given(st.data())
@settings(max_examples=300)
def test_any_segments_are_taken_or_refused(data: st.DataObject) -> None:
    """Whatever is accepted stays inside the arrays: the sanitizers watch it."""
    near = st.integers(-2, 70) | st.sampled_from([MOST, -MOST - 1, 2**31 - 1, 2**31, 2**32, 2**62])
    segments = data.draw(st.lists(st.tuples(near, near, near, near, near | st.integers(-70, -1)), max_size=4))
    arguments = Call().arguments | {
        "qkv": np.zeros((data.draw(st.integers(0, 12)), 3, 2, 16), np.float32),
        "segments": np.array(segments, np.int64).reshape(-1, 5),
        "mask": np.zeros(data.draw(st.sampled_from([0, 31, 400])), np.float32),
        "kernels": data.draw(st.sampled_from(KERNELS)),
    }
    try:
        result = _core_testing.attention(
            **(arguments | {"window": data.draw(near), "num_sinks": data.draw(near | st.just(0))})
        )
    except ValueError:
        assert (arguments["keys"] == 7).all() and (arguments["values"] == 7).all()
    else:
        assert np.isfinite(result).all()
