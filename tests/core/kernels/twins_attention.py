"""A slow NumPy twin of attention over a cache: every score at once, in float64."""

from __future__ import annotations

import numpy as np

EPSILON = 2.0**-24
"""The largest relative error of one rounding to float32."""


def stored(new: np.ndarray, dtype: np.dtype, scale: np.ndarray | None) -> np.ndarray:
    """New keys or values [rows, tokens, heads, head_dim] as the cache keeps them."""
    if scale is None:
        return new.astype(dtype)
    units = new * (np.float32(1) / scale)  # in float32, which decides where a value between two units goes
    return np.clip(np.rint(units), -128, 127).astype(np.int8)


def append(cache: np.ndarray, new: np.ndarray, last: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    """A copy of the cache [rows, heads, capacity, head_dim] with the new ones in their slots."""
    result = cache.copy()
    tokens = new.shape[1]
    for row, newest in enumerate(last):
        slots = slice(newest + 1 - tokens, newest + 1)
        result[row, :, slots] = stored(new[row : row + 1], cache.dtype, scale)[0].swapaxes(0, 1)
    return result


def attend(
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    last: np.ndarray,
    key_scale: np.ndarray | None = None,
    value_scale: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Attention of queries [rows, tokens, heads, head_dim], and how far float32 may be from it."""
    result, slack = np.zeros(queries.shape), np.zeros(queries.shape)
    rows, tokens, heads, head_dim = queries.shape
    for row in range(rows):
        for token in range(tokens):
            length = int(last[row]) + 2 - tokens + token
            for head in range(heads):
                key = keys[row, head, :length].astype(float)
                value = values[row, head, :length].astype(float)
                if key_scale is not None:
                    key, value = key * key_scale[head], value * value_scale[head]
                query = queries[row, token, head].astype(float)
                scores = key @ query / np.sqrt(head_dim)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                result[row, token, head] = weights @ value
                # n roundings of a sum add up like a random walk, to about sqrt(n); four times that is not seen. A
                # score is a sum over head_dim, of a size up to that of |query| |key|; less the largest it is rounded
                # again. What an exponent is off by, its weight and the sum of weights are off by. The mix and the sum
                # of weights are sums over the keys.
                size = np.linalg.norm(query) * np.linalg.norm(key, axis=1).max() / np.sqrt(head_dim)
                score_error = 4 * EPSILON * (np.sqrt(head_dim) * size + 2 * np.abs(scores).max())
                mix_error = 4 * EPSILON * (2 * np.sqrt(length) + 4)
                slack[row, token, head] = (2 * score_error + mix_error) * (weights @ np.abs(value))
    return result, slack
