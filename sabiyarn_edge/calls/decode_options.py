"""From a GenerationConfig to the options of the compiled core."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from typing import cast

from .._core import DecodeOptions, DecodeState, derived_seed
from ..errors import InvalidInputError
from ..options.generation_config import GenerationConfig
from ..text.tokenizer import Tokenizer

__all__ = ["DEFAULT_MAX_NEW_TOKENS", "decide_seeds", "decode_options", "decode_state", "max_new_tokens"]

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
    """A run of the core over several prompts in step, before its first step.

    Args:
        prompts: checked ids of each prompt.
        vocab_size: ids are 0 ... vocab_size - 1.
        max_positions: most tokens of prompt and output together; None: no limit.
        tokenizer: the model's; only stop_strings need it.

    Raises:
        InvalidInputError: prompt and output do not fit into the positions, an id is outside the vocabulary, or the
            seeds are not one per prompt.
    """
    options = decode_options(
        config,
        max_new_tokens=max_new_tokens(config, max(map(len, prompts)), max_positions),
        seeds=decide_seeds(config, len(prompts)),
        vocab_size=vocab_size,
        tokenizer=tokenizer,
    )
    try:
        return DecodeState(options, vocab_size, prompts)
    except ValueError as error:  # an id outside the vocabulary: the core names the option
        raise InvalidInputError(f"{error}.") from error


def decode_options(
    config: GenerationConfig,
    *,
    max_new_tokens: int | None,
    seeds: Sequence[int],
    vocab_size: int,
    tokenizer: Tokenizer | None,
) -> DecodeOptions:
    """The core's options.

    Args:
        max_new_tokens: most tokens to generate; None: config.max_length decides.
        seeds: one for each output.
        vocab_size: ids are 0 ... vocab_size - 1.
        tokenizer: the model's; only stop_strings need it.

    Raises:
        InvalidInputError: stop_strings without a tokenizer, or an option that the core refuses.
    """
    if config.stop_texts and tokenizer is None:
        raise InvalidInputError(
            "stop_strings need a tokenizer, but there is none here. Use eos_token_id, put the model's tokenizer.json "
            "into its folder, or give the torch model's generate() a tokenizer."
        )
    try:
        return DecodeOptions(
            max_new_tokens=max_new_tokens,
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
            stop_strings=[tokenizer.normalized(text).encode() for text in config.stop_texts]
            if tokenizer
            else [],
            token_bytes=tokenizer.native_bytes(vocab_size) if tokenizer and config.stop_texts else None,
            max_time_s=config.max_time,
            seeds=list(seeds),
            return_scores=config.output_scores,
        )
    except ValueError as error:
        raise InvalidInputError(f"{error}.") from error


def max_new_tokens(
    config: GenerationConfig, prompt_length: int, max_positions: int | None, name: str = "the prompt"
) -> int | None:
    """The most tokens to generate, checked against the positions that there are; None where max_length decides.

    Args:
        prompt_length: tokens of the prompt, or of the longest one.
        max_positions: most tokens of prompt and output together; None: no limit.
        name: of the prompt, for the message.

    Raises:
        InvalidInputError: prompt and output do not fit, with both numbers.
    """
    room = sys.maxsize if max_positions is None else max_positions - prompt_length
    limit = "the limit (block_size, or the max_length at loading) is"
    if config.max_new_tokens is not None:
        asked = prompt_length + config.max_new_tokens
        if config.max_new_tokens > room:
            raise InvalidInputError(
                f"{name} has {prompt_length} tokens and max_new_tokens is {config.max_new_tokens}: "
                f"{asked} positions, but {limit} {max_positions}. Shorten the prompt or "
                f'ask for at most {room} new tokens, or give overflow="slide" or "truncate_prompt".'
            )
        return config.max_new_tokens
    if config.max_length is None:
        fewest = config.min_new_tokens or 0
        if fewest > room:
            raise InvalidInputError(
                f"{name} has {prompt_length} tokens and min_new_tokens is {fewest}: {prompt_length + fewest} "
                f"positions, but {limit} {max_positions}. Shorten the prompt or lower min_new_tokens to at most {room}."
            )
        return min(max(DEFAULT_MAX_NEW_TOKENS, fewest), room)
    if max_positions is not None and config.max_length > max_positions:
        raise InvalidInputError(
            f"max_length is {config.max_length}, but {limit} {max_positions}. Ask for at most that many."
        )
    if config.max_length <= prompt_length:
        raise InvalidInputError(
            f"{name} has {prompt_length} tokens and max_length, which counts them, is {config.max_length}: no new "
            f"token fits. Give a max_length above {prompt_length}, or max_new_tokens, which does not count the prompt."
        )
    return None


def decide_seeds(config: GenerationConfig, num_prompts: int) -> list[int]:
    """A seed for each output row, num_return_sequences for each prompt, adjacent.

    Without a seed every row draws one of its own. Of one seed, row r gets one that is derived from it and r; row 0 gets
    the seed itself. Of a list each prompt gets its own, from which those of its further sequences are derived.

    Raises:
        InvalidInputError: a list that has not one seed for each prompt.
    """
    returns = config.num_return_sequences
    if config.seed is None:
        return [secrets.randbits(63) if config.do_sample else 0 for _ in range(num_prompts * returns)]
    if isinstance(config.seed, int):
        return [derived_seed(config.seed, row) for row in range(num_prompts * returns)]
    if len(config.seed) != num_prompts:
        raise InvalidInputError(
            f"seed holds {len(config.seed)} seeds for {num_prompts} prompts. Give one seed, or one for each prompt."
        )
    return [derived_seed(seed, i) for seed in config.seed for i in range(returns)]


def _sequence_bias(config: GenerationConfig) -> list[tuple[Sequence[int], float]]:
    pairs = cast(
        Sequence[tuple[Sequence[int], float]], config.sequence_bias or ()
    )  # as GenerationConfig keeps it
    return list(pairs)
