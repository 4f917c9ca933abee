"""Texts as vectors: the hidden states behind the model's last layer norm, from which it would choose the next token.

decoder.onnx gives them as a further output, `hidden_states`. Nobody pays for it: they are computed in every step, and
are handed out only when a run asks for them. Such a run computes the logits of the same positions too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..engine.decoder import Decoder
from ..engine.rows import Rows
from ..engine.work import Budget, Piece, Work
from ..errors import nan_error
from .pooling import Pooling

__all__ = ["Embedding"]


class Embedding(Work):
    """Makes one text a vector.

    Args:
        tokens: at least one, at most the model's positions.
        pooling: "mean" of all tokens' hidden states, or the "last" token's, which has seen all the others.
        needed_bytes: see Work.
    """

    due = False
    wants_hidden = True

    def __init__(self, tokens: Sequence[int], pooling: Pooling, needed_bytes: int = 0) -> None:
        super().__init__()
        self.needed_bytes = needed_bytes
        self._tokens = list(tokens)
        self._wanted = len(self._tokens) if pooling == "mean" else 1
        self._total: NDArray[np.float64] | None = None
        self._ran = 0

    @property
    def vector(self) -> NDArray[np.float32]:
        """The result float32 [n_embd], once it has ended."""
        assert self._total is not None
        return (self._total / self._wanted).astype(np.float32)

    def begin(self, decoder: Decoder, rows: Rows) -> None:
        self._decoder, self._rows = decoder, rows
        self._total = np.zeros(decoder.config.gptjx.n_embd, np.float64)
        rows.reserve(len(self._tokens))
        self.rows = [rows.take()]

    def plan(self, budget: Budget) -> Sequence[Piece]:
        row, done = self.rows[0], len(self.rows[0].tokens)
        count = min(len(self._tokens) - done, budget.tokens, self._decoder.kv_cache.max_append(row.index))
        first_wanted = len(self._tokens) - self._wanted
        count = min(count, max(first_wanted - done, 0) + max(budget.logits, 0))
        if count <= 0:
            return ()
        self._ran = max(done + count - max(first_wanted, done), 0)
        budget.tokens -= count
        budget.logits -= self._ran
        return [Piece(row, self._tokens[done : done + count], self._ran)]

    def advance(self, first: int, hidden: NDArray[np.float32] | None) -> None:
        assert hidden is not None and self._total is not None
        # One token after the other: the sum must not depend on how the text was cut into runs.
        for state in hidden[first : first + self._ran]:
            self._total += state
        if len(self.rows[0].tokens) < len(self._tokens):
            return
        if not np.isfinite(self._total).all():
            raise nan_error("the text")
        self.end(self._rows, keep=False)
