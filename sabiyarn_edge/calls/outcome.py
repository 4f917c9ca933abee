"""From generations that have ended to what the caller gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..constraints.constraint import is_satisfied
from ..engine.generation import Generation
from ..options.generation_config import GenerationConfig
from ..text.streaming import TextStream
from ..text.tokenizer import Tokenizer
from .request import Call
from .result import GenerationResult, Timings

__all__ = ["result_of", "text_stream"]


def result_of(
    call: Call, generations: Sequence[Generation], tokenizer: Tokenizer | None, started: float
) -> GenerationResult:
    """Join what each prompt gave.

    Args:
        started: `time.perf_counter()` when the caller called.
    """
    returns = call.config.num_return_sequences
    sequences: list[list[int]] = []
    reasons: list[str] = []
    for generation in generations:
        own, own_reasons = _outputs(generation, returns)
        sequences += own
        reasons += own_reasons
    prompt_lengths = [len(call.prompts.ids[row // returns]) for row in range(len(sequences))]
    lengths = [len(ids) for ids in sequences]
    padded = np.full((len(sequences), max(lengths)), call.config.padding_token_id, np.int64)
    for row, ids in enumerate(sequences):
        padded[row, : len(ids)] = ids
    generated = [ids[start:] for ids, start in zip(sequences, prompt_lengths, strict=True)]
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
        truncated_tokens=[call.prompts.truncated[row // returns] for row in range(len(sequences))],
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


def _outputs(generation: Generation, returns: int) -> tuple[list[list[int]], list[str]]:
    """Ids and finish reason of each output row of a prompt."""
    state = generation.state
    if generation.interrupted:  # before the first token
        return [list(generation.request.prompt) for _ in range(returns)], [state.interruption()] * returns
    return state.sequences(), [reason or state.interruption() for reason in state.finish_reasons()]


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
    times = [generation.times for generation in generations]
    ended = max(time.ended for time in times)
    first_logits = max(time.first_logits or time.ended for time in times)
    first_token = max(time.first_token or time.ended for time in times)
    computed = sum(len(generation.context) for generation in generations)
    reused = sum(time.reused_tokens for time in times)
    return Timings(
        prefill_tokens=computed - reused,
        reused_tokens=reused,
        prefill_seconds=first_logits - min(time.prefill_started or first_logits for time in times),
        decode_tokens=max(decode_tokens, 0),
        decode_seconds=ended - first_token,
        time_to_first_token=min(time.first_token or time.ended for time in times) - started,
        reruns=sum(time.reruns for time in times),
        rerun_tokens=sum(time.rerun_tokens for time in times),
        rerun_seconds=sum(time.rerun_seconds for time in times),
        num_guesses=sum(time.guesses for time in times),
    )
