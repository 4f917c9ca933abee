"""GenerationResult: the texts, tokens and scores of a call, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..system.value_equality import ValueEquality

__all__ = ["GenerationResult", "Timings"]


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Where the time of one call went."""

    prefill_tokens: int
    """Prompt tokens computed."""
    reused_tokens: int
    """Prompt tokens that were not: their keys and values were there from calls before, or from a prompt beside."""
    prefill_seconds: float
    """Time for them, seconds."""
    decode_tokens: int
    """Tokens generated after the first of each row, over all rows."""
    decode_seconds: float
    """Time from the first token to the last, seconds."""
    time_to_first_token: float
    """From the call to the first chosen token, seconds: encoding, prefill and one selection."""
    reruns: int = 0
    """With overflow="slide": how often positions ended and a row's kept tokens were computed again."""
    rerun_tokens: int = 0
    """Tokens of these reruns."""
    rerun_seconds: float = 0.0
    """Time for them, seconds; part of decode_seconds."""
    num_guesses: int = 0
    """With prompt lookup: tokens that were guessed, right or wrong."""

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens per second."""
        return self.prefill_tokens / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Generated tokens per second after the first, over all rows."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerationResult(ValueEquality):
    """One row for each prompt and returned sequence: all of the first prompt, all of the second, ...

    Two results are equal if all their fields but `timings` are: the same call with the same seed gives an equal one.
    """

    texts: list[str] | None
    """The generated text of each row, without its prompt; None if the model folder has no tokenizer."""
    sequences: NDArray[np.int64]
    """[rows, length]: prompt and generated ids, padded on the right with pad_token_id."""
    prompt_lengths: list[int]
    """Tokens of each row's prompt."""
    truncated_tokens: list[int]
    """Tokens that overflow="truncate_prompt" left out of each row's prompt."""
    lengths: list[int]
    """Tokens of each row without padding, prompt included."""
    finish_reasons: list[str]
    """Why each row ended: "eos", "stop", "length", "time" or "cancelled". With beams, a row for which no sequence
    was left (all scores below -1e9, by a large negative length_penalty or because few tokens were allowed) has no new
    token, the score -1e9 and "length"."""
    complete: list[bool] | None
    """With json_schema, json_object, regex, choices or grammar: whether each row's text satisfies it. It does if the
    reason is "eos" or "stop"; a row that ended for another reason was cut, unless this says otherwise. Else None."""
    sequences_scores: NDArray[np.float32] | None
    """[rows]: with beams, sum of log-probabilities / length ** length_penalty; else None."""
    scores: list[NDArray[np.float32]] | None
    """With output_scores: for each row [generated], the log-probability with which each token was chosen."""
    timings: Timings = field(compare=False)
    """Where the time went."""
    seeds: list[int] | None = None
    """With do_sample: the seed of each row. A call with one prompt and that seed makes the row again."""

    @property
    def text(self) -> str | None:
        """The first row's text."""
        return self.texts[0] if self.texts is not None else None

    @property
    def generated(self) -> list[list[int]]:
        """Each row's generated ids, without prompt and padding."""
        return [
            self.sequences[row, start:end].tolist()
            for row, (start, end) in enumerate(zip(self.prompt_lengths, self.lengths, strict=True))
        ]
