"""The options of generation: what each means, its default, and the check of its value."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import checks as check

__all__ = ["CONSTRAINTS", "MAX_RETURNS", "OptionFields"]

CONSTRAINTS = ("json_schema", "json_object", "regex", "choices", "grammar")
"""Options that say what the output may be."""

MAX_BEAMS = 64
MAX_RETURNS = 4096
"""More rows than any device holds: a typing mistake is refused instead of filling the memory."""
MAX_GUESSES = 512

LEAST_TEMPERATURE = 1e-20
LEAST_PENALTY = 1e-6
"""Least divisors of scores. Divided by both, a logit of 1e4 with ten biases of check.LARGEST_BIAS is 1e36; float32 ends
at 3.4e38. From a temperature of 1e-6 down the best token is certain, but for ties."""

_SAME_AS_DEFAULT = object()


def _option(default: Any, checked_by: check.Check, *, none_means: Any = _SAME_AS_DEFAULT) -> Any:
    """A field, its check, and what None means for it (Hugging Face's callers write top_p=None)."""
    none_value = default if none_means is _SAME_AS_DEFAULT else none_means
    return dataclasses.field(default=default, metadata={"check": checked_by, "none": none_value})


_token_id = check.integer()
_token_ids = check.many(_token_id)


@dataclass(frozen=True, kw_only=True)
class OptionFields:
    """The fields of GenerationConfig, which checks them."""

    # --- length and end ---
    max_new_tokens: int | None = _option(None, check.integer(at_least=1))
    """Most tokens to generate, prompt not counted. None (and no max_length): until an end token, at most 256
    or as many as there are positions left. Hugging Face stops at 20, which cuts most answers in mid-sentence.
    """
    max_length: int | None = _option(None, check.integer(at_least=1))
    """Most tokens of prompt and output together. max_new_tokens wins over it."""
    min_length: int = _option(0, check.integer())
    """Fewest tokens of prompt and output: until then end tokens are not chosen. min_new_tokens wins over it."""
    min_new_tokens: int | None = _option(None, check.integer())
    """Fewest tokens to generate: until then end tokens are not chosen."""
    max_time: float | None = _option(None, check.number(above=0))
    """Seconds after which generation ends, measured from the call; the running step is finished first."""
    eos_token_id: int | Sequence[int] | None = _option(None, check.one_or_many(_token_id))
    """Id or ids that end a row; kept in the output. None: no token ends a row."""
    pad_token_id: int | None = _option(None, _token_id)
    """Id that fills shorter rows of `sequences` on the right. None: the first end token."""
    bos_token_id: int | None = _option(None, _token_id)
    """Id that begins a text; kept for other programs, a prompt is never prefixed with it."""
    stop_strings: str | Sequence[str] | None = _option(None, check.one_or_many(check.text))
    """Text or texts that end a row once they stand in the output, also across token borders."""
    include_stop_string: bool = _option(False, check.flag)
    """Keep the stop string, and what follows it in the last token, in the result's text. The token ids always keep
    them. Hugging Face's default is True; here the text is cut off before the stop string."""

    # --- way of choosing ---
    do_sample: bool = _option(False, check.flag)
    """Draw each token by its probability (True) or take the best one (False)."""
    num_beams: int = _option(1, check.integer(at_least=1, at_most=MAX_BEAMS))
    """Hypotheses that beam search follows at once. 1: no beam search."""
    num_return_sequences: int = _option(1, check.integer(at_least=1, at_most=MAX_RETURNS))
    """Outputs for each prompt: draws when sampling, the best hypotheses with beams."""
    early_stopping: bool | Literal["never"] = _option(False, check.choice(True, False, "never"))
    """With beams: True ends as soon as num_beams outputs are finished, False when no better one is likely,
    "never" when no better one is possible."""
    length_penalty: float = _option(1.0, check.number())
    """With beams: exponent p in score = sum of log-probabilities / length**p, length in generated tokens.
    Above 0 favours longer outputs, below 0 shorter ones."""
    seed: int | Sequence[int] | None = _option(None, check.one_or_many(check.integer(at_most=check.MAX_SEED)))
    """Seed of the draws, or one for each prompt: the same draws on every machine. None: another one for each
    call. Hugging Face has no such option, it uses torch's global state."""
    prompt_lookup_num_tokens: int | None = _option(None, check.integer(at_most=MAX_GUESSES))
    """Most tokens guessed at once by copying from prompt and output. Fewer are guessed, or none, while the text shows
    that more would not pay. Changes speed, never the output. None: up to 8, as far as their logits take 1 MiB (5 for
    SabiYarn-125M), with one row for each prompt and without attn_mask. 0: none. Hugging Face's default is none."""
    max_matching_ngram_size: int | None = _option(None, check.integer(at_least=1))
    """Longest n-gram that is looked up for these guesses. None: 3."""
    output_scores: bool = _option(False, check.flag)
    """Give the log-probability of each generated token in the result."""

    # --- what the output may be: at most one of these; docs/structured_output.md ---
    json_schema: str | Mapping[str, Any] | bool | None = _option(None, check.json_schema)
    """The output is JSON that fits this schema: a dict, or its JSON text, as which it is kept."""
    json_object: bool = _option(False, check.flag)
    """The output is a JSON object."""
    regex: str | None = _option(None, check.regex)
    """The whole output matches this regular expression, of Rust's regex syntax (no look-around)."""
    choices: Sequence[str] | None = _option(None, check.texts)
    """The output is one of these texts."""
    grammar: str | None = _option(None, check.grammar)
    """The output is what this Lark grammar derives from `start`, in llguidance's dialect."""

    # --- which tokens are likely: every mode ---
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[Any] | None = _option(
        None, check.bias_of_sequences
    )
    """{(ids): bias} or [[[ids], bias], ...]: added to the score of the last id when the ids before it were
    just produced."""
    repetition_penalty: float = _option(1.0, check.number(at_least=LEAST_PENALTY, hint="1 switches it off."))
    """Penalty r on each id of prompt and output: score * r when the score is negative, else score / r.
    1: none."""
    penalty_window: int | None = _option(None, check.integer(at_least=1))
    """Newest ids of prompt and output that repetition_penalty counts. None: all. Not an option of Hugging Face's."""
    frequency_penalty: float = _option(0.0, check.added_score)
    """Subtracted from an id's score once for each time that the output holds it. Source: OpenAI's API."""
    presence_penalty: float = _option(0.0, check.added_score)
    """Subtracted from an id's score if the output holds it. Source: OpenAI's API."""
    no_repeat_ngram_size: int = _option(0, check.integer())
    """No n-gram of this many ids occurs twice in prompt and output. 0: repetition is allowed."""
    bad_words_ids: Sequence[Sequence[int]] | None = _option(
        None, check.many(check.many(_token_id, may_be_empty=False))
    )
    """Sequences of ids that are never produced."""
    forced_bos_token_id: int | None = _option(None, _token_id)
    """Id that must follow a prompt of one token, which begins a text; behind longer prompts it changes nothing."""
    forced_eos_token_id: int | Sequence[int] | None = _option(None, check.one_or_many(_token_id))
    """Id or ids that must come last when the maximum length is reached."""
    suppress_tokens: Sequence[int] | None = _option(None, _token_ids)
    """Ids that are never chosen."""
    begin_suppress_tokens: Sequence[int] | None = _option(None, _token_ids)
    """Ids that are not chosen as the first token."""
    renormalize_logits: bool = _option(False, check.flag)
    """Turn scores into log-probabilities again after all processors and filters."""

    # --- which tokens are likely: only when sampling ---
    temperature: float = _option(
        1.0,
        check.number(
            at_least=LEAST_TEMPERATURE,
            hint="For the most likely token each time (greedy decoding) set do_sample=False.",
        ),
    )
    """Scores are divided by it: below 1 the likely tokens become likelier."""
    top_k: int | None = _option(50, check.integer(hint="0 switches it off."), none_means=None)
    """Only this many best tokens stay (more on ties). 0 or None: all."""
    top_p: float = _option(1.0, check.number(above=0, at_most=1, hint="1 switches it off."))
    """Only the smallest set of best tokens whose probabilities sum to this value stays. 1: all."""
    min_p: float | None = _option(None, check.number(at_least=0, at_most=1))
    """Tokens less likely than this times the likeliest are dropped. None or 0: none."""
    typical_p: float = _option(1.0, check.number(above=0, at_most=1, hint="1 switches it off."))
    """Only the tokens whose information is nearest to the entropy stay, up to this probability. 1: all.
    Source: Meister et al. 2022, Locally Typical Sampling."""
    epsilon_cutoff: float = _option(0.0, check.number(at_least=0, below=1, hint="0 switches it off."))
    """Tokens less likely than this are dropped. Source: Hewitt et al. 2022, Truncation Sampling."""
    eta_cutoff: float = _option(0.0, check.number(at_least=0, below=1, hint="0 switches it off."))
    """Tokens less likely than min(e, sqrt(e) * exp(-entropy)) are dropped. Source: as epsilon_cutoff."""

    # --- what the options come to ---

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end tokens as a tuple, empty when there are none."""
        return _as_tuple(self.eos_token_id)

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The stop strings as a tuple, empty when there are none."""
        return _as_tuple(self.stop_strings)

    @property
    def constraint(self) -> tuple[str, Any] | None:
        """The option that says what the output may be, and its value; None: it may be anything."""
        return next(self.constraints, None)

    @property
    def constraints(self) -> Iterator[tuple[str, Any]]:
        """All such options that are given: more than one in an invalid config only."""
        return ((name, value) for name in CONSTRAINTS if (value := getattr(self, name)))

    @property
    def forced_eos_token_ids(self) -> tuple[int, ...]:
        """The forced end tokens as a tuple, empty when there are none."""
        return _as_tuple(self.forced_eos_token_id)

    @property
    def padding_token_id(self) -> int:
        """pad_token_id, else the first end token, else 0."""
        return self.pad_token_id if self.pad_token_id is not None else next(iter(self.eos_token_ids), 0)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)
