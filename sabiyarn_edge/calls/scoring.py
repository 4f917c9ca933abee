"""How likely the model finds a text: log-probability of each token, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._core import log_sum_exp
from ..engine.decoder import Decoder
from ..engine.rows import Row, Rows
from ..engine.work import Budget, Piece, Work
from ..errors import nan_error
from ..options.overflow import SlidingContext
from ..system.value_equality import ValueEquality

__all__ = ["Score", "Scoring", "best_tokens", "log_prob"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Score(ValueEquality):
    """One text as the model sees it."""

    token_ids: list[int]
    """The text's tokens."""
    log_probs: NDArray[np.float32]
    """[len(token_ids) - 1]: natural log-probability of each token but the first, given all before it. Of a text that
    continues another, [len(token_ids)]: of all its tokens."""

    @property
    def total(self) -> float:
        """Log-probability of the text given its first token, or given the text that it continues."""
        return float(self.log_probs.sum(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """exp(-mean of log_probs): 1 if the model knew every token, vocab_size if it guessed; NaN for one token."""
        count = len(self.log_probs)
        return math.exp(-self.total / count) if count else math.nan


class Scoring(Work):
    """Scores one text.

    Args:
        tokens: at least one. More than `context.positions` make the text slide as generation does.
        context: which tokens the model sees when its positions end.
        num_given: first tokens that are not scored.
        needed_bytes: see Work.
        num_top: how many of the likeliest tokens to keep where each token stands.
        listener: called with the logits float32 [vocab_size] before each scored token; it must not keep them. Or None.
    """

    due = False

    def __init__(
        self,
        tokens: Sequence[int],
        context: SlidingContext,
        *,
        num_given: int = 0,
        needed_bytes: int = 0,
        num_top: int = 0,
        listener: Callable[[NDArray[np.float32]], object] | None = None,
    ) -> None:
        super().__init__()
        self.needed_bytes, self._num_top = needed_bytes, num_top
        self.top: list[list[tuple[int, float]]] = []
        """Of each scored token: the likeliest tokens in its place, with their log-probabilities, best first."""
        self._tokens, self._context, self._num_given = list(tokens), context, num_given
        self._first = max(num_given, 1)  # token that is scored first
        self._listener = listener
        self._log_probs = np.empty(len(tokens) - self._first, np.float32)
        self._done = self._first - 1  # tokens whose successors are scored, or not wanted
        # Tokens to run without logits: of what is given, and anew after a slide.
        self._rerun: list[int] = context.of(self._tokens[: self._first])[:-1]
        self._ran = (0, 0)  # tokens of the run at hand: without and with logits

    @property
    def score(self) -> Score:
        """The result, once it has ended."""
        return Score(token_ids=self._tokens[self._num_given :], log_probs=self._log_probs)

    def begin(self, decoder: Decoder, rows: Rows) -> None:
        self._decoder, self._rows = decoder, rows
        if len(self._log_probs) == 0:
            self.end(rows, keep=False)
            return
        rows.reserve(min(len(self._tokens) - 1, self._context.positions))
        self.rows = [rows.take()]

    def plan(self, budget: Budget) -> Sequence[Piece]:
        row = self.rows[0]
        room = min(budget.tokens, self._decoder.kv_cache.max_append(row.index))
        if self._slides(row):
            self._rows.restart(row)
            self._rerun = self._context.of(self._tokens[: self._done + 1])[:-1]
        if self._rerun:
            count = min(room, len(self._rerun))
            tokens, self._ran = self._rerun[:count], (count, 0)
        else:
            until_slide = self._context.until_slide(self._done + 1)
            count = min(room, budget.logits, len(self._tokens) - 1 - self._done, until_slide)
            tokens, self._ran = self._tokens[self._done : self._done + count], (0, count)
            budget.logits -= count
        budget.tokens -= count
        return [Piece(row, tokens, self._ran[1])] if count > 0 else ()

    def _slides(self, row: Row) -> bool:
        """Whether the text must slide before its next token, and has not done so yet."""
        length = self._done + 1
        return (
            not self._rerun
            and self._context.slides_at(length)
            and len(row.tokens) >= self._context.length(length)
        )

    def advance(self, first: int, hidden: NDArray[np.float32] | None) -> None:
        unscored, scored = self._ran
        del self._rerun[:unscored]
        if scored == 0:
            return
        begin = self._done
        for i, logits in enumerate(self._decoder.runner.logits(first, scored), start=begin):
            try:
                self._log_probs[i + 1 - self._first] = log_prob(logits, self._tokens[i + 1])
                if self._num_top:
                    best = best_tokens(logits, self._num_top)
                    # Rounded as the tokens' own, which are compared with them.
                    self.top.append([(token, float(np.float32(log_prob(logits, token)))) for token in best])
            except ValueError as error:  # the core found NaN; within a run it spreads to the tokens before
                raise nan_error(f"one of the tokens {begin} to {begin + scored} of the text") from error
            if self._listener is not None:
                self._listener(logits)
        self._done += scored
        if self._done == len(self._tokens) - 1:
            self.end(self._rows, keep=False)


def log_prob(logits: NDArray[np.float32], token: int) -> float:
    """Natural log-probability of a token. Raises ValueError if the logits hold NaN."""
    return float(logits[token]) - float(logits.max()) - log_sum_exp(logits)


def best_tokens(scores: NDArray[np.float32], count: int) -> list[int]:
    """The `count` tokens with the highest scores, the best first; of equal ones the lower id."""
    count = min(count, len(scores))
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    ids = np.flatnonzero(scores >= least)
    found: list[int] = ids[np.argsort(-scores[ids], kind="stable")][:count].tolist()
    return found
