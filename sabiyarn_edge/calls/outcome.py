"""From generations that have ended to what the caller gets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .._core import DecodeState
from ..constraints.constraint import is_satisfied
from ..engine.generation import Generation
from ..errors import InvalidInputError
from ..options.generation_config import GenerationConfig
from ..text.streaming import TextStream
from ..text.tokenizer import Tokenizer
from .request import Call
from .result import GenerationResult, Timings

__all__ = ["finish_reasons", "result_of", "text_stream"]


def result_of(
    call: Call, generations: Sequence[Generation], tokenizer: Tokenizer | None, started: float
) -> GenerationResult:
    """Join what each prompt gave.

    Args:
        started: `time.perf_counter()` when the caller called.
    """
    sequences: list[list[int]] = []
    generated: list[list[int]] = []
    reasons: list[str] = []
    prompt_lengths: list[int] = []
    truncated_tokens: list[int] = []
    for index, generation in enumerate(generations):
        prompt_length = len(call.prompts.ids[index])
        for ids, reason in zip(*_outputs(generation, call.config), strict=True):
            sequences.append(ids)
            generated.append(ids[prompt_length:])
            reasons.append(reason)
            prompt_lengths.append(prompt_length)
            truncated_tokens.append(call.prompts.truncated[index])
    lengths = list(map(len, sequences))
    padded = np.full((len(sequences), max(lengths)), call.config.padding_token_id, np.int64)
    for row, ids in enumerate(sequences):
        padded[row, : len(ids)] = ids
    texts = None
    if tokenizer is not None:
        texts = [
            text_stream(call.config, tokenizer).join(ids, reason)
            for ids, reason in zip(generated, reasons, strict=True)
        ]
    return GenerationResult(
        texts=texts,
        sequences=padded,
        prompt_lengths=prompt_lengths,
        truncated_tokens=truncated_tokens,
        lengths=lengths,
        finish_reasons=reasons,
        complete=_complete(call, generated),
        sequences_scores=_sequences_scores(call.config, generations),
        scores=_scores(call.config, generations),
        timings=_timings(generations, sum(map(len, generated)) - len(sequences), started),
        seeds=call.seeds,
    )


def text_stream(config: GenerationConfig, tokenizer: Tokenizer) -> TextStream:
    """Turns the tokens of one row into text, as the options want it."""
    stops = () if config.include_stop_string else map(tokenizer.normalized, config.stop_texts)
    return TextStream(tokenizer, stop_strings=tuple(stops))


def finish_reasons(state: DecodeState, config: GenerationConfig) -> list[str]:
    """Why each output row of a state that has ended did so.

    Beam search may end with fewer sequences than are to be returned. Without a constraint the other rows are as
    transformers gives them: no new token, and a score of -1e9. Theirs is "length".

    Raises:
        InvalidInputError: the constraint allows fewer outputs than are to be returned.
    """
    reasons = [reason or state.interruption() for reason in state.finish_reasons()]
    returned = config.num_return_sequences
    for first in range(0, len(reasons), returned):
        found = sum(map(bool, reasons[first : first + returned]))
        if config.constraint is not None and 0 < found < returned:
            raise InvalidInputError(
                f"num_return_sequences is {returned}, but beam search finds only {found} outputs that "
                f"{config.constraint[0]} allows. Ask for at most {found}."
            )
    return [reason or "length" for reason in reasons]


def _outputs(generation: Generation, config: GenerationConfig) -> tuple[list[list[int]], list[str]]:
    """Ids and finish reason of each output row of a prompt."""
    state = generation.state
    if generation.interrupted:  # before the first token
        returned = config.num_return_sequences
        return [list(generation.request.prompt) for _ in range(returned)], [state.interruption()] * returned
    return state.sequences(), finish_reasons(state, config)


def _complete(call: Call, generated: Sequence[Sequence[int]]) -> list[bool] | None:
    """Check each output against the constraint, if there is one."""
    if call.constraint is None:
        return None
    return [is_satisfied(call.constraint, ids, call.config.eos_token_ids) for ids in generated]


def _scores(config: GenerationConfig, generations: Sequence[Generation]) -> list[NDArray[np.float32]] | None:
    if not config.output_scores or any(generation.interrupted for generation in generations):
        return None
    return [np.asarray(row, np.float32) for generation in generations for row in generation.state.scores()]


def _sequences_scores(
    config: GenerationConfig, generations: Sequence[Generation]
) -> NDArray[np.float32] | None:
    if config.num_beams == 1 or any(generation.interrupted for generation in generations):
        return None
    scores = [score for generation in generations for score in generation.state.sequences_scores()]
    return np.asarray(scores, np.float32)


def _timings(generations: Sequence[Generation], decode_tokens: int, started: float) -> Timings:
    began = first_token = math.inf
    ended = last_logits = last_first_token = rerun_seconds = 0.0
    computed = reused = reruns = rerun_tokens = num_guesses = 0
    for generation in generations:
        times = generation.times
        began = min(began, times.prefill_started or math.inf)
        last_logits = max(last_logits, times.first_logits or times.ended)
        first_token = min(first_token, times.first_token or times.ended)
        last_first_token = max(last_first_token, times.first_token or times.ended)
        ended = max(ended, times.ended)
        computed += len(generation.context)
        reused += times.reused_tokens
        reruns += times.reruns
        rerun_tokens += times.rerun_tokens
        rerun_seconds += times.rerun_seconds
        num_guesses += times.guesses
    return Timings(
        prefill_tokens=computed - reused,
        reused_tokens=reused,
        prefill_seconds=last_logits - min(began, last_logits),
        decode_tokens=max(decode_tokens, 0),
        decode_seconds=ended - last_first_token,
        time_to_first_token=first_token - started,
        reruns=reruns,
        rerun_tokens=rerun_tokens,
        rerun_seconds=rerun_seconds,
        num_guesses=num_guesses,
    )
