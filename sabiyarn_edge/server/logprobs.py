"""LogprobReader: reads the log-probabilities of each chosen token and of the likeliest ones, while they are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calls.scoring import Scoring, best_tokens
from ..text.tokenizer import Tokenizer

__all__ = ["LogprobReader", "TokenLogprobs", "prompt_logprobs", "shown"]


@dataclass(frozen=True)
class TokenLogprobs:
    """What the model thought where it chose a token: natural logarithms of probabilities, after penalties and biases,
    before temperature and the filters of drawing (top_k, top_p, ...)."""

    token: int
    logprob: float | None
    """None for a prompt's first token, before which the model saw nothing."""
    top: list[tuple[int, float]]
    """The likeliest tokens, the best first; of equal ones the lower id."""


class LogprobReader:
    """Watches one generation of one row through its callbacks, and changes nothing.

    Args:
        num_top: how many of the likeliest tokens to keep for each.
    """

    def __init__(self, num_top: int) -> None:
        self._num_top = num_top
        self._logprobs: NDArray[np.float32] = np.empty(0, np.float32)
        self.tokens: list[TokenLogprobs] = []
        """One for each token chosen so far."""

    @property
    def options(self) -> dict[str, Any]:
        """The callbacks, as generate() takes them."""
        return {"logits_processor": self._read, "stopping_criteria": self._choose}

    def _read(self, ids: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        row = scores[0]
        shifted = row - row.max()
        self._logprobs = shifted - np.log(np.exp(shifted).sum(dtype=np.float64)).astype(np.float32)
        return scores

    def _choose(self, ids: NDArray[np.int64], scores: None) -> bool:
        token = int(ids[0, -1])
        self.tokens.append(TokenLogprobs(token, float(self._logprobs[token]), self._top()))
        return False

    def _top(self) -> list[tuple[int, float]]:
        if self._num_top == 0:
            return []
        best = best_tokens(self._logprobs, self._num_top)
        return [(token, float(self._logprobs[token])) for token in best]


def prompt_logprobs(scoring: Scoring) -> list[TokenLogprobs]:
    """What the model thought of a prompt's tokens; nothing changes their scores."""
    first, *others = scoring.score.token_ids
    tops = scoring.top or [[] for _ in others]
    logprobs = scoring.score.log_probs.tolist()
    return [
        TokenLogprobs(first, None, []),
        *(TokenLogprobs(*each) for each in zip(others, logprobs, tops, strict=True)),
    ]


def shown(token: int, tokenizer: Tokenizer) -> tuple[str, bytes]:
    """A token as text, and its bytes. Bytes that are no text are shown as OpenAI does: "bytes:\\xe1\\xba"."""
    own = tokenizer.token_bytes(token)
    try:
        return own.decode(), own
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own), own
