"""Parser is argparse with one-line errors that name the nearest option."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from ..errors import shortened, shown

__all__ = ["LONGEST_MESSAGE", "SLOT_PREFIX", "Parser", "UsageError"]

LONGEST_MESSAGE = 600
"""Characters: argparse quotes a wrong value as a whole."""

SLOT_PREFIX = "slot_"
"""Keeps the value of a task's slot apart from those of other options; messages name the slot without it."""


class UsageError(Exception):
    """The arguments cannot be understood."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError, takes no abbreviations and keeps the epilog's line breaks."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def add_version(self) -> None:
        """Add --version, without importing anything."""
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the message that argparse would print."""
        raise UsageError(f"{shortened(message, LONGEST_MESSAGE)} (see `{self.prog} --help`)")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print --help and --version; argparse would say nothing where that fails."""
        print(message, end="", file=file, flush=True)

    def parse_all(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse like parse_args, with a helpful error for an unknown option."""
        arguments, unknown = self.parse_known_args(argv)
        if unknown:
            command: Parser = arguments.parser
            option = next((word for word in unknown if word.startswith("-")), None)
            if option is None:
                command.error(
                    f"unexpected argument {shown(unknown[0])}; put quotes around a text with spaces"
                )
            command.error(f"unknown option {shortened(option)}{command._advice(option.partition('=')[0])}")
        return arguments

    def in_flags(self, message: str, arguments: argparse.Namespace) -> str:
        """Name the options that were given by their flags where a message names them as in Python.

        A name that stands in what the user wrote stays everywhere, as a message may quote that; at the message's
        beginning it stays if it is all that was written.
        """
        given = vars(arguments).values()
        written = repr([value for value in given if not callable(value) and value is not self])
        for action in self._actions:
            name, flag = action.dest.removeprefix(SLOT_PREFIX), next(iter(action.option_strings), None)
            if flag is None or repr(name) in written:
                continue
            # Else it is a file's, or --option's.
            told = getattr(arguments, action.dest, action.default) != action.default
            if told:
                message = re.sub(rf"^{name}(?= (?:is|was) )", flag, message)
            if re.search(rf"\b{name}\b", written):
                continue
            message = re.sub(rf"\b{name}=True\b", flag, message)
            if told and "_" in name:  # else it may be an ordinary word
                message = re.sub(rf"(?<![\w/.'\"-]){name}(?![\w/'\"=-]|\.\w)", flag, message)
        return message

    def _advice(self, option: str) -> str:
        from ..options.generation_config import GenerationConfig

        name = option.lstrip("-").replace("-", "_")
        if "--option" in self._option_string_actions and name in GenerationConfig.__dataclass_fields__:
            return f"; use --option {name}=VALUE"
        longer = [known for known in self._option_string_actions if known.startswith(option)]
        nearest = longer or difflib.get_close_matches(option, self._option_string_actions, n=1)
        return f"; did you mean {nearest[0]}?" if nearest else ""
