"""GenerationConfig: how tokens are chosen and when generation ends. Names and meanings are Hugging Face's."""

from __future__ import annotations

import dataclasses
import difflib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidInputError, ModelFolderError
from ..model_folder.config import read_json_object
from ..system.atomic_write import atomic_file
from . import checks as check
from .conflicts import contradictions, reasons_to_be_unused
from .huggingface import NO_EFFECT, NOT_HERE

__all__ = ["CALLABLE_OPTIONS", "GENERATION_CONFIG_FILE", "MAX_BEAMS", "GenerationConfig", "OptionWarning"]

GENERATION_CONFIG_FILE = "generation_config.json"
CALLABLE_OPTIONS = ("logits_processor", "prefix_allowed_tokens_fn", "stopping_criteria")
"""Options of a call that are functions: given to generate(), never part of a GenerationConfig."""
MAX_BEAMS = 64
MAX_RETURNS = 4096
"""More rows than any device holds; a slip of the pen would fill its memory instead of being refused."""
MAX_GUESSES = 512


class OptionWarning(UserWarning):
    """An option was given that changes nothing, or a file holds one that is not known here."""


_SAME_AS_DEFAULT = object()


def _option(default: Any, checked_by: check.Check, *, none_means: Any = _SAME_AS_DEFAULT) -> Any:
    """A field, its check, and what None means for it (Hugging Face's callers write top_p=None)."""
    none_value = default if none_means is _SAME_AS_DEFAULT else none_means
    return dataclasses.field(default=default, metadata={"check": checked_by, "none": none_value})


_token_id = check.integer()
_token_ids = check.many(_token_id)


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Options of generation, checked when they are given; immutable, so use `updated` for variants.

    Defaults are Hugging Face's except for the three that say so. None for an option that is a number means
    its default. Lists are kept as tuples. Scores are logits when num_beams is 1, else log-probabilities.

    Raises:
        InvalidInputError: an option has the wrong type, is out of range, or contradicts another one.
    Source: semantics of transformers 4.57 `generate`.
    """

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
    """Whether the result's text keeps the stop string and what came with it in the last token. The token ids
    always keep them. Hugging Face keeps it; here it is cut off: who names a stop wants what stands before."""

    # --- way of choosing ---
    do_sample: bool = _option(False, check.flag)
    """Draw each token by its probability (True) or take the best one (False)."""
    num_beams: int = _option(1, check.integer(at_least=1, at_most=MAX_BEAMS))
    """Hypotheses that are followed at once (beam search). 1: none."""
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
    prompt_lookup_num_tokens: int | None = _option(None, check.integer(at_least=1, at_most=MAX_GUESSES))
    """Greedy only: tokens guessed at once by copying from prompt and output. Changes speed, never the output.
    """
    max_matching_ngram_size: int | None = _option(None, check.integer(at_least=1))
    """With prompt_lookup_num_tokens: longest run of ids that is looked up. None: 2."""
    output_scores: bool = _option(False, check.flag)
    """Whether the result holds the log-probability of each generated token."""

    # --- which tokens are likely: every mode ---
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[Any] | None = _option(
        None, check.bias_of_sequences
    )
    """{(ids): bias} or [[[ids], bias], ...]: added to the score of the last id when the ids before it were
    just produced."""
    repetition_penalty: float = _option(1.0, check.number(above=0, hint="1 switches it off."))
    """Penalty r on each id of prompt and output: score * r when the score is negative, else score / r.
    1: none."""
    penalty_window: int | None = _option(None, check.integer(at_least=1))
    """Limits repetition_penalty to the last so many ids of prompt and output. None: all. Not Hugging Face's.
    """
    frequency_penalty: float = _option(0.0, check.number())
    """Subtracted from an id's score once for each time that the output holds it. Source: OpenAI's API."""
    presence_penalty: float = _option(0.0, check.number())
    """Subtracted from an id's score if the output holds it. Source: OpenAI's API."""
    no_repeat_ngram_size: int = _option(0, check.integer())
    """No run of so many ids occurs twice in prompt and output. 0: allowed."""
    bad_words_ids: Sequence[Sequence[int]] | None = _option(
        None, check.many(check.many(_token_id, may_be_empty=False))
    )
    """Runs of ids that are never produced."""
    forced_bos_token_id: int | None = _option(None, _token_id)
    """Id that must follow a prompt of one token, which begins a text; behind longer prompts it changes nothing."""
    forced_eos_token_id: int | Sequence[int] | None = _option(None, check.one_or_many(_token_id))
    """Id or ids that must come last when the maximum length is reached."""
    suppress_tokens: Sequence[int] | None = _option(None, _token_ids)
    """Ids that are never chosen."""
    begin_suppress_tokens: Sequence[int] | None = _option(None, _token_ids)
    """Ids that are not chosen as the first token."""
    renormalize_logits: bool = _option(False, check.flag)
    """Whether scores become log-probabilities again after everything else has changed them."""

    # --- which tokens are likely: only when sampling ---
    temperature: float = _option(
        1.0,
        check.number(
            above=0, hint="For the most likely token each time (greedy decoding) set do_sample=False."
        ),
    )
    """Scores are divided by it: below 1 the likely tokens become likelier."""
    top_k: int | None = _option(50, check.integer(hint="0 switches it off."), none_means=None)
    """Only this many best tokens stay (more on ties). 0 or None: all."""
    top_p: float = _option(1.0, check.number(above=0, at_most=1, hint="1 switches it off."))
    """Only the smallest set of best tokens whose probabilities sum to this stays. 1: all."""
    min_p: float | None = _option(None, check.number(at_least=0, at_most=1))
    """Tokens less likely than this times the likeliest are dropped. None or 0: none."""
    typical_p: float = _option(1.0, check.number(above=0, at_most=1, hint="1 switches it off."))
    """Only the tokens whose information is nearest to the entropy stay, up to this probability. 1: all.
    Source: Meister et al. 2022, Locally Typical Sampling."""
    epsilon_cutoff: float = _option(0.0, check.number(at_least=0, below=1, hint="0 switches it off."))
    """Tokens less likely than this are dropped. Source: Hewitt et al. 2022, Truncation Sampling."""
    eta_cutoff: float = _option(0.0, check.number(at_least=0, below=1, hint="0 switches it off."))
    """Tokens less likely than min(e, sqrt(e) * exp(-entropy)) are dropped. Source: as epsilon_cutoff."""

    def __post_init__(self) -> None:
        self._check()
        self._warn_of_unused(_FIELDS, stacklevel=4)

    def validate(self) -> None:
        """Check all options again. An instance is always valid; this is here for Hugging Face's callers."""
        self._check()

    # --- variants and files ---

    def updated(self, **overrides: Any) -> GenerationConfig:
        """This config with some options changed.

        Raises:
            InvalidInputError: an option is unknown (the nearest known name is given), or its value is bad.
        """
        _refuse_unknown(overrides)
        if not overrides:
            return self
        config = self._without_warning({**self._values(), **overrides})
        config._warn_of_unused(overrides, stacklevel=3)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The options that differ from their defaults, ready for JSON."""
        return {
            name: value
            for name, value in json.loads(json.dumps(self._values())).items()
            if value != _FIELDS[name].default
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "the dict") -> GenerationConfig:
        """Read options as they stand in a generation_config.json, ours or Hugging Face's.

        Warns:
            OptionWarning: names the keys that were left out because they are unknown or not implemented here.
                Hugging Face's keys that cannot change the output (use_cache, ...) are dropped silently.
        """
        left_out = [
            _why_left_out(name, value)
            for name, value in values.items()
            if name not in _FIELDS and name not in NO_EFFECT and not _is_neutral(name, value)
        ]
        if left_out:
            warnings.warn(f"{source}: left out {', '.join(left_out)}.", OptionWarning, stacklevel=2)
        return cls._without_warning({name: value for name, value in values.items() if name in _FIELDS})

    @classmethod
    def load(cls, folder: str | Path) -> GenerationConfig:
        """Read folder/generation_config.json; a folder without one has the defaults.

        Raises:
            ModelFolderError: the file is damaged or an option in it is bad.
        """
        path = Path(folder) / GENERATION_CONFIG_FILE
        if not path.exists():
            return cls()
        try:
            return cls.from_dict(read_json_object(path), source=str(path))
        except InvalidInputError as error:
            message = str(error) if str(path) in str(error) else f"{path}: {error}"
            raise ModelFolderError(message) from error

    def save(self, folder: str | Path) -> None:
        """Write folder/generation_config.json. The folder must exist."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        with atomic_file(Path(folder) / GENERATION_CONFIG_FILE) as file:
            file.write(text.encode())

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
    def forced_eos_token_ids(self) -> tuple[int, ...]:
        """The forced end tokens as a tuple, empty when there are none."""
        return _as_tuple(self.forced_eos_token_id)

    @property
    def padding_token_id(self) -> int:
        """pad_token_id, else the first end token, else 0."""
        return self.pad_token_id if self.pad_token_id is not None else next(iter(self.eos_token_ids), 0)

    def unused_options(self) -> dict[str, str]:
        """Option that differs from its default but changes nothing -> why, naming the other option."""
        return {
            name: reason
            for name, reason in reasons_to_be_unused(self)
            if getattr(self, name) != _FIELDS[name].default
        }

    # --- inside ---

    @classmethod
    def _without_warning(cls, values: Mapping[str, Any]) -> GenerationConfig:
        """Checked for errors, but without the warnings about options that change nothing."""
        config = cls.__new__(cls)
        for name, field in _FIELDS.items():
            object.__setattr__(config, name, values.get(name, field.default))
        config._check()
        return config

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}

    def _check(self) -> None:
        for name, field in _FIELDS.items():
            value = getattr(self, name)
            normal = field.metadata["none"] if value is None else field.metadata["check"](name, value)
            object.__setattr__(self, name, normal)
        for contradiction in contradictions(self):
            raise InvalidInputError(contradiction)

    def _warn_of_unused(self, given: Iterable[str], *, stacklevel: int) -> None:
        unused = self.unused_options()
        told = [f"{name} ({unused[name]})" for name in given if name in unused]
        if told:
            warnings.warn(
                f"these options change nothing: {', '.join(told)}.", OptionWarning, stacklevel=stacklevel
            )


_FIELDS = {field.name: field for field in dataclasses.fields(GenerationConfig)}


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _nearest(name: str) -> str | None:
    longer = [known for known in _FIELDS if known.startswith(name)]  # "stop" -> stop_strings
    return next(iter(longer or difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.5)), None)


def _refuse_unknown(options: Iterable[str]) -> None:
    problems = []
    for name in options:
        if name in _FIELDS:
            continue
        if name in CALLABLE_OPTIONS:
            problems.append(
                f"{name} is a function: give it to generate() itself, a GenerationConfig cannot hold it."
            )
        elif name in NO_EFFECT:
            problems.append(f"{name} is an option of Hugging Face's that changes nothing here: leave it out.")
        elif name in NOT_HERE:
            problems.append(f"{name} is an option of Hugging Face's that is not implemented here.")
        else:
            nearest = _nearest(name)
            problems.append(f"unknown option {name}{f'; did you mean {nearest}?' if nearest else '.'}")
    if problems:
        raise InvalidInputError(" ".join(problems))


def _is_neutral(name: str, value: Any) -> bool:
    return name in NOT_HERE and (value is None or value == NOT_HERE[name])


def _why_left_out(name: str, value: Any) -> str:
    if name in NOT_HERE:
        return f"{name}={value!r} (Hugging Face's, not implemented here)"
    nearest = _nearest(name)
    return f"{name} (unknown{f'; did you mean {nearest}?' if nearest else ''})"
