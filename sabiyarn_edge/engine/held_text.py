"""HeldText: which tokens' keys and values the KV cache's first row holds, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import KvCache
from .prefix_cache import PrefixCache, common_prefix

__all__ = ["HeldText"]


class HeldText:
    """Lets a prompt begin with what was computed before: in the KV cache's first row, or in the pool.

    Whoever empties or refills the KV cache says so here before.

    Args:
        kv_cache: whose first row it is.
        num_layers: the model's.
        pool: gets what leaves the cache, and gives it back.
    """

    def __init__(self, kv_cache: KvCache, num_layers: int, pool: PrefixCache) -> None:
        self.pool = pool
        self._cache, self._num_layers = kv_cache, num_layers
        self._tokens: list[int] = []

    @property
    def tokens(self) -> list[int]:
        """Tokens that the first row was given from position 0 on, of which it may have evicted some."""
        return list(self._tokens)

    @property
    def wrapped(self) -> bool:
        """Whether the row has evicted tokens: it can be continued then, but not be cut."""
        return self._cache.length(0) < self._cache.next_position(0)

    def remember(self, tokens: Sequence[int]) -> None:
        """Say that the first row begins with `tokens`; it may hold more."""
        self._tokens = list(tokens)

    def release(self, kept: int = 0) -> None:
        """The row is about to lose all but its first `kept` tokens: the pool takes them if it wants them."""
        tokens, self._tokens = self._tokens, []
        if len(tokens) > kept and not self.wrapped:
            self.pool.add(tokens, self.read)
        else:
            self.pool.trim()  # of what sessions held that have ended since

    def forget(self) -> None:
        """Know nothing any more, neither of the row nor in the pool."""
        self._tokens = []
        self.pool.clear()

    def begin(self, tokens: Sequence[int], positions: int) -> int:
        """Start anew with a single row that holds the longest known beginning of `tokens`.

        Args:
            positions: that the row will need, at most the window.

        Returns:
            How many tokens that are.
        """
        held = self._usable(tokens)
        pieces = self.pool.match(tokens)
        if _count(pieces) <= held:
            pieces = []
        if held == 0 or pieces:
            held = 0
            self.release()
            self._cache.reset(1)
        elif self.wrapped:
            self._tokens = []
            self._cache.reorder([0])
        else:
            self.release(held)
            self._cache.keep_prefix(0, held)
        self._cache.reserve(positions)
        for piece in pieces:
            self.write(0, piece)
        return held + _count(pieces)

    def _usable(self, tokens: Sequence[int]) -> int:
        """How many leading `tokens` the row can go on from."""
        common = common_prefix(self._tokens, tokens)
        if common == 0 or not self.wrapped:
            return common
        # Cut anywhere else, it would lack what was evicted for the tokens behind.
        return common if common == len(self._tokens) == self._cache.next_position(0) else 0

    def continue_row(self, row: int, tokens: Sequence[int]) -> int:
        """Give a row, which holds a beginning of `tokens`, what the pool knows of the rest.

        Returns:
            How many of the tokens it holds then.
        """
        held = self._cache.next_position(row)
        if self._cache.length(row) < held:
            return held
        first = 0
        for piece in self.pool.match(tokens):
            end = first + piece.shape[3]
            if end > held and end <= self._cache.window:
                self.write(row, piece[:, :, :, held - first :])
                held = end
            first = end
        return held

    def read(self, first: int, end: int) -> NDArray[Any]:
        """A copy of the first row's keys and values [n_layer, 2, n_heads, end - first, head_dim]."""
        return np.stack([[side[0, :, first:end] for side in layer] for layer in self._layers()])

    def write(self, row: int, sides: NDArray[Any]) -> None:
        """Append to a row what was computed for its next tokens: [n_layer, 2, n_heads, tokens, head_dim]."""
        count = sides.shape[3]
        end = self._cache.begin_append(row, count)
        for layer, computed in zip(self._layers(), sides, strict=True):
            for side, values in zip(layer, computed, strict=True):
                side[row, :, end - count : end] = values

    def _layers(self) -> list[list[NDArray[Any]]]:
        """Views of all buffers, [layer][side]."""
        return [[self._buffer(layer, side) for side in ("key", "value")] for layer in range(self._num_layers)]

    def _buffer(self, layer: int, side: str) -> NDArray[Any]:
        buffer = self._cache.buffer(layer, side)
        assert buffer is not None
        return buffer


def _count(pieces: Sequence[NDArray[Any]]) -> int:
    """Tokens of keys and values [n_layer, 2, n_heads, tokens, head_dim]."""
    return sum(piece.shape[3] for piece in pieces)
