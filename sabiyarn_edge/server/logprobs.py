"""LogprobReader: reads the log-probabilities of each chosen token and of the likeliest ones, while they are chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calls.scoring import Scoring, best_tokens
from ..text.incremental_decoding import incremental_decoder
from ..text.tokenizer import Tokenizer

__all__ = ["LogprobReader", "TextOffsets", "TokenLogprobs", "prompt_logprobs", "shown"]

_GAP = 16
"""Characters of a prompt that no token may hold at one place: blanks, mostly."""


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


class TextOffsets:
    """Says where each token of a completion stands in its text, in characters.

    Args:
        prompt_ids: of the prompt.
        echoed: the prompt's text, if the completion begins with it; else "".
        num_echoed: how many tokens of the prompt are pushed before those of the answer: all or none.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], echoed: str, num_echoed: int) -> None:
        self._tokenizer = tokenizer
        self._echoed = _found([shown(token, tokenizer)[0] for token in prompt_ids[:num_echoed]], echoed)
        self._decoder = incremental_decoder(tokenizer, prompt_ids=prompt_ids)
        self._length = len(echoed)

    def push(self, token: int) -> int:
        """Take the next token. Part of a character, and what the text leaves out, stand where the text goes on."""
        offset = next(self._echoed, None)
        if offset is not None:
            return offset
        own, added, start = shown(token, self._tokenizer)[0], self._decoder.push(token), self._length
        self._length += len(added)
        return self._length - len(own) if added.endswith(own) else start


def _found(tokens: Sequence[str], text: str) -> Iterator[int]:
    """Look for each token behind the one before: the tokenizer drops blanks, adds one in front, or changes letters."""
    place = missed = 0
    for token in tokens:
        stripped = token.lstrip()
        if stripped and not text.startswith(token, place) and text.startswith(stripped, place):
            token = stripped
        offset = text.find(token, place, place + missed + len(token) + _GAP)
        if offset < 0:
            offset, missed = place, missed + len(token)
        else:
            place, missed = offset + len(token), 0
        yield offset
