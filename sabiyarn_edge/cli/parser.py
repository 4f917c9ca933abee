"""Parser is argparse with one-line errors that name the nearest option."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from ..errors import shortened, shown

__all__ = ["LONGEST_MESSAGE", "Parser", "UsageError"]

LONGEST_MESSAGE = 600
"""Characters: argparse quotes a wrong value as a whole."""


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

        A name that stands in what the user wrote stays everywhere: a message may quote that.
        """
        written = repr(vars(arguments).values())
        for action in self._actions:
            name, flag = action.dest, next(iter(action.option_strings), None)
            if flag is None or name in written:
                continue
            message = re.sub(rf"\b{name}=True\b", flag, message)
            if getattr(arguments, name, action.default) == action.default:  # a file's, or --option's
                continue
            message = re.sub(rf"^{name}(?= (?:is|was) )", flag, message)
            if "_" in name:  # else it may be an ordinary word
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
