"""A slow NumPy twin of attention over a cache: it knows positions only, takes every score at once, in float64."""

from __future__ import annotations

import numpy as np

EPSILON = 2.0**-24
"""The largest relative error of one rounding to float32."""

KEY_TILE = 16
"""Keys that are woven."""


def weave(keys: np.ndarray) -> np.ndarray:
    """Keys [rows, heads, capacity, head_dim] as a cache stores them: [rows, heads, capacity / 16, head_dim, 16]."""
    rows, heads, capacity, head_dim = keys.shape
    tiles = keys.reshape(rows, heads, capacity // KEY_TILE, KEY_TILE, head_dim)
    return np.ascontiguousarray(tiles.swapaxes(3, 4))


def unweave(tiles: np.ndarray) -> np.ndarray:
    """The reverse of weave()."""
    rows, heads, count, head_dim, _ = tiles.shape
    return np.ascontiguousarray(tiles.swapaxes(3, 4)).reshape(rows, heads, count * KEY_TILE, head_dim)


def slot_of(position: int, num_sinks: int, capacity: int) -> int:
    """Where a position stands: sinks keep their slots, the others go round behind them."""
    if position < num_sinks:
        return position
    return num_sinks + (position - num_sinks) % (capacity - num_sinks)


def stored(new: np.ndarray, dtype: np.dtype, scale: np.ndarray | None) -> np.ndarray:
    """New keys or values [tokens, heads, head_dim] as the cache keeps them."""
    if scale is None:
        return new.astype(dtype)
    units = new * (np.float32(1) / scale)  # in float32, which decides where a value between two units goes
    return np.clip(np.rint(units), -128, 127).astype(np.int8)


def rounded_queries(queries: np.ndarray, key_scale: np.ndarray) -> np.ndarray:
    """The queries of a head [tokens, head_dim] that an int8 cache multiplies: integers times a unit, per token.

    In float32, which decides where a value between two integers goes.
    """
    one, head_dim = np.float32(1), queries.shape[1]
    scaled = queries * (one / np.sqrt(np.float32(head_dim))) * key_scale
    largest = np.abs(scaled).max(axis=1, keepdims=True)
    code = np.float32(min(16383, (2**31 - 1) // (128 * head_dim)))
    used = largest > np.float32(1e-30)
    codes = np.rint(scaled * np.where(used, code / np.where(used, largest, one), np.float32(0)))
    assert codes.dtype == np.float32
    units = np.where(used, largest / code, np.float32(0)).astype(float)
    return codes * units * np.sqrt(head_dim) / key_scale.astype(float)


def sees(
    positions: np.ndarray, num_keys: int, window: int, num_sinks: int, oldest: int, *, ahead: bool
) -> np.ndarray:
    """Which of the positions 0 ... num_keys - 1 each token sees, bool [tokens, num_keys].

    Args:
        positions: of the tokens.
        ahead: whether they see those behind their own too.
    """
    keys, own = np.arange(num_keys), positions[:, None]
    recent = (keys > own - (window - num_sinks)) & (keys >= oldest)
    return ((keys < num_sinks) | recent) & (ahead | (keys <= own))


def attend(
    queries: np.ndarray, keys: np.ndarray, values: np.ndarray, added: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Attention of one head, and how far float32 may be from it, both [tokens, head_dim].

    Args:
        queries: [tokens, head_dim].
        keys, values: [positions, head_dim].
        added: to the scores [tokens, positions]; -infinity hides a position. Zeros come of what sees nothing.
    """
    queries, seen = queries.astype(float), added > -np.inf
    some, shift = seen.any(axis=1, keepdims=True), np.where(seen, added, 0)
    head_dim = queries.shape[1]
    scores = np.where(seen, queries @ keys.T / np.sqrt(head_dim) + shift, -np.inf)
    weights = np.exp(scores - np.where(some, scores.max(axis=1, keepdims=True), 0))
    weights /= np.where(some, weights.sum(axis=1, keepdims=True), 1)
    # n roundings of a sum add up like a random walk, to about sqrt(n); four times that is not seen. A score is a sum
    # over head_dim, of a size up to that of |query| |key|; what is added and the largest that is taken off round it
    # again. What an exponent is off by, its weight and the sum of weights are off by. The accumulators and the sum of
    # weights are sums over the keys.
    norms = np.where(seen, np.linalg.norm(keys, axis=1), 0).max(axis=1)
    size = np.linalg.norm(queries, axis=1) * norms / np.sqrt(head_dim)
    largest = np.abs(np.where(seen, scores, 0)).max(axis=1)
    score_error = 4 * EPSILON * (np.sqrt(head_dim) * size + 3 * largest + np.abs(shift).max(axis=1))
    sum_error = 4 * EPSILON * (2 * np.sqrt(seen.sum(axis=1)) + 4)
    return weights @ values, (2 * score_error + sum_error)[:, None] * (weights @ np.abs(values))
