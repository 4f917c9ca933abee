"""How likely the model finds a text: log-probability of each token, perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._core import log_sum_exp
from ..engine.decoder import Decoder
from ..errors import NumericalError
from ..options.overflow import SlidingContext

__all__ = ["SCORE_LOGITS_BYTES", "Score", "score_tokens"]

SCORE_LOGITS_BYTES = 8 * 2**20
"""What the logits of one run may take, bytes: 40 positions of SabiYarn-125M's 52050 float32 logits."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One text as the model sees it."""

    token_ids: list[int]
    """The text's tokens."""
    log_probs: NDArray[np.float32]
    """[len(token_ids) - 1]: natural log-probability of each token but the first, given all before it."""

    @property
    def total(self) -> float:
        """Log-probability of the text given its first token."""
        return float(self.log_probs.sum(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """exp(-mean of log_probs): 1 if the model knew every token, vocab_size if it guessed; NaN for one token."""
        count = len(self.log_probs)
        return math.exp(-self.total / count) if count else math.nan


def score_tokens(session: Decoder, tokens: Sequence[int], context: SlidingContext) -> Score:
    """Score one text; the KV cache holds nothing else then.

    Args:
        tokens: at least one. More than `context.positions` make the text slide as generation does.

    Raises:
        NumericalError: the model gave NaN.
    """
    ids = np.asarray(tokens, np.int64)
    log_probs = np.empty(len(ids) - 1, np.float32)
    most = max(SCORE_LOGITS_BYTES // (4 * session.config.gptjx.vocab_size), 1)
    session.begin(min(max(len(log_probs), 1), session.window))
    done = 0
    while done < len(log_probs):
        if context.slides_at(done + 1):
            session.rerun(0, context.of(tokens[: done + 1])[:-1])
        # Several tokens on a full ring would evict what the first of them still has to see.
        room = max(session.kv_cache.window - session.kv_cache.length(0), 1)
        count = min(
            most, room, len(log_probs) - done, context.until_slide(done + 1), session.max_prefill_chunk
        )
        session.runner.forward(0, ids[done : done + count])
        try:
            for i, logits in enumerate(session.runner.logits(count), start=done):
                log_probs[i] = _log_prob(logits, ids[i + 1])
        except ValueError as error:  # the core found NaN; within a run it spreads to the tokens before
            raise NumericalError(
                f"the model gave NaN for one of the tokens {done} to {done + count} of the text. Its weights may be "
                "damaged."
            ) from error
        done += count
    return Score(token_ids=[int(token) for token in tokens], log_probs=log_probs)


def _log_prob(logits: NDArray[np.float32], token: int) -> float:
    return float(logits[token]) - float(logits.max()) - log_sum_exp(logits)
