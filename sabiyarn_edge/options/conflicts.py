"""Options that contradict each other (errors), and options that others make useless (warnings)."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import shown
from .fields import OptionFields

__all__ = ["SAMPLING_ONLY", "contradictions", "forbidding_options", "reasons_to_be_unused"]

SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
_LEAST_BEAM_TEMPERATURE = 1e-4
"""Beam search sums scores, and takes -1e9 for a hypothesis that is not allowed. Divided by this temperature, 4096
log-probabilities of -20 sum to -8e8."""
_BEAMS_ONLY = ("length_penalty", "early_stopping")
_FORBIDDING = (
    "no_repeat_ngram_size",
    "bad_words_ids",
    "min_length",
    "min_new_tokens",
    "suppress_tokens",
    "begin_suppress_tokens",
)


def contradictions(options: OptionFields) -> Iterator[str]:
    """Yield an error text for each pair of options that contradict each other. It names both."""
    yield from _of_returns(options)
    yield from _of_beam_sampling(options)
    yield from _of_prompt_lookup(options)
    yield from _of_lengths(options)
    yield from _of_forced_tokens(options)
    yield from _of_constraints(options)


def reasons_to_be_unused(options: OptionFields) -> Iterator[tuple[str, str]]:
    """Yield (option, reason) for each option that changes nothing whatever its value is."""
    if not options.do_sample:
        yield from ((name, "do_sample is False") for name in SAMPLING_ONLY)
    if options.num_beams == 1:
        yield from ((name, "num_beams is 1") for name in _BEAMS_ONLY)
    if options.max_new_tokens is not None:
        yield "max_length", "max_new_tokens is given"
    if options.min_new_tokens:
        yield "min_length", "min_new_tokens is given"
    if options.repetition_penalty == 1.0:
        yield "penalty_window", "repetition_penalty is 1"
    if options.prompt_lookup_num_tokens == 0:
        yield "max_matching_ngram_size", "prompt_lookup_num_tokens is 0"
    if (several := _several_rows(options)) is not None:
        yield "max_matching_ngram_size", several
    if not options.stop_texts:
        yield "include_stop_string", "stop_strings is not given"


def _several_rows(options: OptionFields) -> str | None:
    """Name the option that gives a prompt more than one row, with its value; None if it has one."""
    for name in ("num_beams", "num_return_sequences"):
        if (value := getattr(options, name)) > 1:
            return f"{name} is {value}"
    return None


def _of_returns(options: OptionFields) -> Iterator[str]:
    returns, beams = options.num_return_sequences, options.num_beams
    if beams > 1 and returns > beams:
        yield (
            f"num_return_sequences is {returns} but num_beams is {beams}: beam search has no more outputs "
            f"than beams. Ask for at most {beams} sequences or use {returns} beams."
        )
    if beams == 1 and returns > 1 and not options.do_sample:
        yield (
            f"num_return_sequences is {returns} but do_sample is False and num_beams is 1: greedy decoding "
            "has one output. Set do_sample=True or use beams."
        )


def _of_beam_sampling(options: OptionFields) -> Iterator[str]:
    if options.do_sample and options.num_beams > 1 and options.temperature < _LEAST_BEAM_TEMPERATURE:
        yield (
            f"temperature is {options.temperature:g} and num_beams is {options.num_beams}: beam search sums scores, "
            f"and needs a temperature of at least {_LEAST_BEAM_TEMPERATURE:g}. For the likeliest tokens set "
            "do_sample=False."
        )


def _of_prompt_lookup(options: OptionFields) -> Iterator[str]:
    several = _several_rows(options)
    if options.prompt_lookup_num_tokens and several is not None:
        yield (
            f"prompt_lookup_num_tokens is {options.prompt_lookup_num_tokens} and {several}: prompt lookup works with "
            "one row for each prompt. Leave out one of them."
        )


def _of_lengths(options: OptionFields) -> Iterator[str]:
    most, fewest = options.max_new_tokens, options.min_new_tokens
    if most is not None and fewest is not None and fewest > most:
        yield f"min_new_tokens is {fewest} but max_new_tokens is {most}. Raise the one or lower the other."
    if most is None and options.max_length is not None and options.min_length > options.max_length:
        yield (
            f"min_length is {options.min_length} but max_length is {options.max_length}. Raise the one or "
            "lower the other."
        )


def _of_forced_tokens(options: OptionFields) -> Iterator[str]:
    """Find forced tokens that are suppressed. A forced token is the only candidate, so none would be left."""
    first = () if options.forced_bos_token_id is None else (options.forced_bos_token_id,)
    last = options.forced_eos_token_ids
    for forcing, forced, suppressing in (
        ("forced_bos_token_id", first, "suppress_tokens"),
        ("forced_bos_token_id", first, "begin_suppress_tokens"),
        ("forced_eos_token_id", last, "suppress_tokens"),
    ):
        if forced and set(forced) <= set(getattr(options, suppressing) or ()):
            ids = ", ".join(map(str, forced))
            yield f"{forcing} is {ids} but {suppressing} forbids it. Take it out of one of them."


def _of_constraints(options: OptionFields) -> Iterator[str]:
    """Find what would end or continue an output otherwise than its constraint says."""
    given = [name for name, _ in options.constraints]
    if len(given) > 1:
        yield f"{' and '.join(given)} are given: an output is held to one of them only. Leave the others out."
    for other in ("stop_strings", "forced_bos_token_id", "forced_eos_token_id") if given else ():
        if getattr(options, other) is not None:
            yield (
                f"{given[0]} is given, and {other} is {shown(getattr(options, other))}, which could break what "
                f"{given[0]} promises. Leave out one of them."
            )


def forbidding_options(options: OptionFields) -> list[str]:
    """Name the options at hand that can forbid tokens which a constraint needs."""
    return [name for name in _FORBIDDING if getattr(options, name)]
