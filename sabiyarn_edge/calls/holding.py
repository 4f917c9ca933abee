"""Computes the keys and values of a text, to keep them elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.decoder import Decoder
from ..engine.rows import Rows
from ..engine.work import Budget, Piece, Work

__all__ = ["Holding"]


class Holding(Work):
    """Has the keys and values of one text; what is known of it is not computed.

    Args:
        tokens: at least one, at most the KV window.
        needed_bytes: see Work.
    """

    due = False

    def __init__(self, tokens: Sequence[int], needed_bytes: int = 0) -> None:
        super().__init__()
        self.needed_bytes, self.positions = needed_bytes, len(tokens)
        self._tokens = list(tokens)
        self.key_values: NDArray[Any] | None = None
        """[n_layer, 2, n_heads, tokens, head_dim], once it has ended."""

    def begin(self, decoder: Decoder, rows: Rows) -> None:
        self._decoder, self._rows = decoder, rows
        rows.reserve(len(self._tokens))
        self.rows = [rows.begin(self._tokens)]
        self._read_if_complete()

    def plan(self, budget: Budget) -> Sequence[Piece]:
        done = len(self.rows[0].tokens)
        count = min(len(self._tokens) - done, budget.tokens)
        if count <= 0:
            return ()
        budget.tokens -= count
        return [Piece(self.rows[0], self._tokens[done : done + count], 0)]

    def advance(self, first: int, hidden: NDArray[np.float32] | None) -> None:
        self._read_if_complete()

    def _read_if_complete(self) -> None:
        row = self.rows[0]
        if len(row.tokens) == len(self._tokens):
            self.key_values = self._decoder.kv_cache.read(row.index, 0, len(row.tokens))
            self.end(self._rows, keep=True)
