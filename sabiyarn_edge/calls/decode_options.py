"""From a GenerationConfig and the prompts of a call to a run of the compiled core."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from typing import cast

from .._core import DecodeOptions, DecodeState
from ..errors import InvalidInputError
from ..options.generation_config import GenerationConfig
from ..text.tokenizer import Tokenizer

__all__ = ["DEFAULT_MAX_NEW_TOKENS", "decode_options", "decode_state"]

DEFAULT_MAX_NEW_TOKENS = 256
"""Most new tokens where neither max_new_tokens nor max_length is given, nor min_new_tokens asks for more."""


def decode_state(
    config: GenerationConfig,
    *,
    prompts: Sequence[Sequence[int]],
    vocab_size: int,
    max_positions: int | None,
    tokenizer: Tokenizer | None,
) -> DecodeState:
    """One call's run of the core, before its first step.

    Args, Raises: as `decode_options`.
    """
    options = decode_options(
        config, prompts=prompts, vocab_size=vocab_size, max_positions=max_positions, tokenizer=tokenizer
    )
    try:
        return DecodeState(options, vocab_size, prompts)
    except ValueError as error:  # an id outside the vocabulary: the core names the option
        raise InvalidInputError(f"{error}.") from error


def decode_options(
    config: GenerationConfig,
    *,
    prompts: Sequence[Sequence[int]],
    vocab_size: int,
    max_positions: int | None,
    tokenizer: Tokenizer | None,
) -> DecodeOptions:
    """The core's options for one call.

    Args:
        prompts: checked ids of each prompt.
        vocab_size: ids are 0 ... vocab_size - 1.
        max_positions: most tokens of prompt and output together; None: no limit.
        tokenizer: the model's; only stop_strings need it.

    Raises:
        InvalidInputError: prompt and output do not fit into the positions, an id is outside the vocabulary, or the
            seeds are not one per prompt.
    """
    if config.stop_texts and tokenizer is None:
        raise InvalidInputError(
            "stop_strings need a tokenizer, but there is none here. Use eos_token_id, put the model's tokenizer.json "
            "into its folder, or give the torch model's generate() a tokenizer."
        )
    if config.prompt_lookup_num_tokens is not None and len(prompts) > 1:
        raise InvalidInputError(
            f"prompt_lookup_num_tokens works on one prompt at a time, but there are {len(prompts)}. Leave it out, or "
            "give the prompts one by one."
        )
    try:
        return DecodeOptions(
            max_new_tokens=_max_new_tokens(config, prompts, max_positions),
            max_length=config.max_length,
            min_length=config.min_length,
            min_new_tokens=config.min_new_tokens or 0,
            do_sample=config.do_sample,
            num_beams=config.num_beams,
            num_return_sequences=config.num_return_sequences,
            early_stopping=config.early_stopping,
            length_penalty=config.length_penalty,
            sequence_bias=_sequence_bias(config),
            repetition_penalty=config.repetition_penalty,
            penalty_window=config.penalty_window or 0,
            frequency_penalty=config.frequency_penalty,
            presence_penalty=config.presence_penalty,
            no_repeat_ngram_size=config.no_repeat_ngram_size,
            bad_words_ids=config.bad_words_ids or (),
            forced_bos_token_id=config.forced_bos_token_id,
            forced_eos_token_id=config.forced_eos_token_ids,
            suppress_tokens=config.suppress_tokens,
            begin_suppress_tokens=config.begin_suppress_tokens,
            temperature=config.temperature,
            top_k=config.top_k or 0,
            top_p=config.top_p,
            min_p=config.min_p,
            typical_p=config.typical_p,
            epsilon_cutoff=config.epsilon_cutoff,
            eta_cutoff=config.eta_cutoff,
            renormalize_logits=config.renormalize_logits,
            eos_token_id=config.eos_token_ids,
            stop_strings=[text.encode() for text in config.stop_texts],
            token_bytes=tokenizer.native_bytes(vocab_size) if tokenizer and config.stop_texts else None,
            max_time_s=config.max_time,
            seeds=_seeds(config, len(prompts)),
            return_scores=config.output_scores,
        )
    except ValueError as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{error}.") from error


def _max_new_tokens(
    config: GenerationConfig, prompts: Sequence[Sequence[int]], max_positions: int | None
) -> int | None:
    """Checked against the positions that there are; None where max_length decides."""
    longest = max(len(prompt) for prompt in prompts)
    room = sys.maxsize if max_positions is None else max_positions - longest
    limit = "the limit (block_size, or the max_length at loading) is"
    whose = "the prompt has" if len(prompts) == 1 else "the longest prompt has"
    if config.max_new_tokens is not None:
        if config.max_new_tokens > room:
            raise InvalidInputError(
                f"{whose} {longest} tokens and max_new_tokens is {config.max_new_tokens}: "
                f"{longest + config.max_new_tokens} positions, but {limit} {max_positions}. Shorten the prompt or "
                f'ask for at most {room} new tokens, or give overflow="slide" or "truncate_prompt".'
            )
        return config.max_new_tokens
    if config.max_length is None:
        fewest = config.min_new_tokens or 0
        if fewest > room:
            raise InvalidInputError(
                f"{whose} {longest} tokens and min_new_tokens is {fewest}: {longest + fewest} positions, but {limit} "
                f"{max_positions}. Shorten the prompt or lower min_new_tokens to at most {room}."
            )
        return min(max(DEFAULT_MAX_NEW_TOKENS, fewest), room)
    if max_positions is not None and config.max_length > max_positions:
        raise InvalidInputError(
            f"max_length is {config.max_length}, but {limit} {max_positions}. Ask for at most that many."
        )
    if config.max_length <= longest:
        raise InvalidInputError(
            f"{whose} {longest} tokens and max_length, which counts them, is {config.max_length}: no new token fits. "
            f"Give a max_length above {longest}, or max_new_tokens, which does not count the prompt."
        )
    return None


def _sequence_bias(config: GenerationConfig) -> list[tuple[Sequence[int], float]]:
    pairs = cast(
        Sequence[tuple[Sequence[int], float]], config.sequence_bias or ()
    )  # as GenerationConfig keeps it
    return list(pairs)


def _seeds(config: GenerationConfig, num_prompts: int) -> int | Sequence[int]:
    if config.seed is None:
        return secrets.randbits(63)
    if not isinstance(config.seed, int) and len(config.seed) != num_prompts:
        raise InvalidInputError(
            f"seed holds {len(config.seed)} seeds for {num_prompts} prompts. Give one seed, or one for each prompt."
        )
    return config.seed
