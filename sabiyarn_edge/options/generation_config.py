"""GenerationConfig: how tokens are chosen and when generation ends. Names and meanings are Hugging Face's."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, ModelFolderError, shortened, shown
from ..model_folder.config import read_json_object
from ..system.atomic_write import atomic_file
from ..system.caller_warning import warn_caller
from .checks import path as check_path
from .conflicts import SAMPLING_ONLY, contradictions, reasons_to_be_unused
from .fields import OptionFields
from .huggingface import NO_EFFECT, NOT_HERE

__all__ = ["CALLABLE_OPTIONS", "GENERATION_CONFIG_FILE", "GenerationConfig", "OptionWarning", "check_options"]

GENERATION_CONFIG_FILE = "generation_config.json"
CALLABLE_OPTIONS = ("logits_processor", "prefix_allowed_tokens_fn", "stopping_criteria")
"""Options of a call that are functions: given to generate(), never part of a GenerationConfig."""


class OptionWarning(UserWarning):
    """An option was given that changes nothing, or a file holds one that is not known here."""


@dataclass(frozen=True, kw_only=True)
class GenerationConfig(OptionFields):
    """Options of generation, checked when they are given; immutable, so use `updated` for variants.

    Defaults are Hugging Face's except for the four that say so. None for an option that is a number means
    its default. Lists are kept as tuples. Scores are logits when num_beams is 1, else log-probabilities.

    Raises:
        InvalidInputError: an option has the wrong type, is out of range, or contradicts another one.
    Source: semantics of transformers 4.57 `generate`.
    """

    def __post_init__(self) -> None:
        self._check()
        self._warn_of_unused(_FIELDS)

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
        config = type(self).__new__(type(self))
        config.__dict__.update(self.__dict__)  # checked already
        config._set(overrides)
        config._warn_of_unused(overrides)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The options that differ from their defaults, ready for JSON."""
        return {
            name: value
            for name, value in json.loads(json.dumps(self._values())).items()
            if value != _FIELDS[name].default
        }

    @classmethod
    def of(cls, given: Any) -> GenerationConfig:
        """Options in the forms that people have them.

        Args:
            given: a GenerationConfig, a dict of options, or Hugging Face's GenerationConfig, of which what differs from
                its defaults is taken.

        Raises:
            InvalidInputError: it is none of these, or an option in it is unknown or bad.
        """
        if isinstance(given, GenerationConfig):
            return given
        if isinstance(given, Mapping):
            check_options("generation_config", given)
            return cls().updated(**given)
        difference = getattr(given, "to_diff_dict", None)
        if callable(difference) and not isinstance(given, type):
            return cls.from_dict(difference(), source="generation_config")
        raise InvalidInputError(
            f"generation_config is {shown(given)}, but must be a GenerationConfig or a dict of its options. Single "
            "options go by their names: max_new_tokens=20."
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "the dict") -> GenerationConfig:
        """Read options as they stand in a generation_config.json, ours or Hugging Face's.

        Such files hold a temperature of 0 for greedy decoding, and a padding id of -1 for none: a value that nothing
        would read is not looked at.

        Warns:
            OptionWarning: names the keys that were left out because they are unknown or not implemented here.
                Hugging Face's keys that cannot change the output (use_cache, ...) are dropped silently.
        """
        check_options(source, values)
        left_out = [
            _why_left_out(name, value)
            for name, value in values.items()
            if name not in _FIELDS and name not in NO_EFFECT and not _is_neutral(name, value)
        ]
        if left_out:
            warn_caller(f"{source}: left out {', '.join(left_out)}.", OptionWarning)
        return cls._without_warning(
            {
                name: value
                for name, value in values.items()
                if name in _FIELDS and not _says_nothing(name, values)
            }
        )

    @classmethod
    def load(cls, folder: str | Path) -> GenerationConfig:
        """Read folder/generation_config.json; a folder without one has the defaults.

        Raises:
            ModelFolderError: the file is damaged or an option in it is bad.
        """
        path = check_path("folder", check_path("folder", folder) / GENERATION_CONFIG_FILE)
        if not path.exists():
            return cls()
        try:
            return cls.from_dict(read_json_object(path), source=str(path))
        except InvalidInputError as error:
            message = str(error) if str(path) in str(error) else f"{path}: {error}"
            raise ModelFolderError(message) from error

    def save(self, folder: str | Path) -> None:
        """Write folder/generation_config.json.

        Raises:
            InvalidInputError: there is no such folder.
            OSError: the file cannot be written, or something else than a file has its name.
        """
        folder = check_path("folder", folder)
        if not folder.is_dir():
            raise InvalidInputError(f"folder is {shown(str(folder))}, which does not exist or is no folder.")
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        with atomic_file(folder / GENERATION_CONFIG_FILE) as file:
            file.write(text.encode())

    def unused_options(self) -> dict[str, str]:
        """Option that differs from its default but changes nothing -> why, naming the other option."""
        return self._unused_of(_FIELDS)

    # --- inside ---

    @classmethod
    def _without_warning(cls, values: Mapping[str, Any]) -> GenerationConfig:
        """Checked for errors, but without the warnings about options that change nothing."""
        config = cls.__new__(cls)
        config._set({name: values.get(name, field.default) for name, field in _FIELDS.items()})
        return config

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}

    def _check(self) -> None:
        self._set(self._values())

    def _set(self, values: Mapping[str, Any]) -> None:
        """Set options in their normal forms, and hold all of them against each other."""
        for name, value in values.items():
            metadata = _FIELDS[name].metadata
            normal = metadata["none"] if value is None else metadata["check"](name, value)
            object.__setattr__(self, name, normal)
        for contradiction in contradictions(self):
            raise InvalidInputError(contradiction)

    def _unused_of(self, names: Collection[str]) -> dict[str, str]:
        return {
            name: reason
            for name, reason in reasons_to_be_unused(self)
            if name in names and getattr(self, name) != _FIELDS[name].default
        }

    def _warn_of_unused(self, given: Collection[str]) -> None:
        unused = self._unused_of(given)
        told = [f"{name} ({unused[name]})" for name in given if name in unused]
        if told:
            warn_caller(f"these options change nothing: {', '.join(told)}.", OptionWarning)


_FIELDS = {field.name: field for field in dataclasses.fields(GenerationConfig)}


def check_options(name: str, values: Any) -> None:
    """Raise InvalidInputError for what is no dict of options by their names; the options are not looked at."""
    if not isinstance(values, Mapping):
        raise InvalidInputError(f"{name} is {shown(values)}, but must be a dict of options.")
    for key in values:
        if not isinstance(key, str):
            raise InvalidInputError(
                f"{name} has the key {shown(key)}; options have names like 'max_new_tokens'."
            )


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
            problems.append(
                f"unknown option {shortened(name)}{f'; did you mean {nearest}?' if nearest else '.'}"
            )
    if problems:
        raise InvalidInputError(" ".join(problems))


_IDS_OF_TEXTS = ("bos_token_id", "eos_token_id", "pad_token_id")


def _says_nothing(name: str, values: Mapping[str, Any]) -> bool:
    """Whether nobody would read a value that a GenerationConfig does not take."""
    value = values[name]
    if name in _IDS_OF_TEXTS:
        return isinstance(value, int) and not isinstance(value, bool) and value == -1
    if values.get("do_sample", False) is not False or name not in SAMPLING_ONLY or value is None:
        return False
    try:
        _FIELDS[name].metadata["check"](name, value)
    except InvalidInputError:
        return isinstance(value, int | float)
    return False


def _is_neutral(name: str, value: Any) -> bool:
    if value is None:
        return name in NOT_HERE
    return isinstance(value, Real) and name in NOT_HERE and value == NOT_HERE[name]


def _why_left_out(name: str, value: Any) -> str:
    if name in NOT_HERE:
        return f"{name}={shown(value)} (Hugging Face's, not implemented here)"
    nearest = _nearest(name)
    return f"{shortened(name)} (unknown{f'; did you mean {nearest}?' if nearest else ''})"
