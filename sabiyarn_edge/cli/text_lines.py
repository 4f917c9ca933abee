"""Reads texts from a file, one in each line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import InvalidInputError
from .loading import add_model_option

__all__ = ["add_arguments", "decoded_lines", "opened"]


_LONGEST_LINE = 64 * 2**20
"""Bytes: what has no end, as /dev/zero, is refused there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all commands with such a file have."""
    parser.add_argument("file", metavar="FILE", help='texts, one in each line; "-" is standard input')
    add_model_option(parser)


def opened(name: str) -> BinaryIO:
    """Open the file, or standard input if it is called "-"."""
    if name == "-":
        if sys.stdin is None:  # closed by the shell (<&-)
            raise InvalidInputError("standard input is closed. Give a file, or texts through a pipe.")
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise InvalidInputError(f"cannot read {name}: {error.strerror or error}.") from error


def decoded_lines(
    file: BinaryIO, name: str, read: Callable[[int], object] = lambda nbytes: None
) -> Iterator[str]:
    """Yield all lines, without their line breaks.

    Args:
        name: that it was opened by.
        read: called with the bytes of each line.
    """
    name = "standard input" if name == "-" else name
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), start=1):
        if len(line) > _LONGEST_LINE:
            raise InvalidInputError(
                f"line {number} of {name} is longer than {_LONGEST_LINE // 2**20} MiB. Give a file of texts, one in "
                "each line."
            )
        read(len(line))
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"line {number} of {name} is not UTF-8: byte {error.start} is {line[error.start]:#04x}. Convert the "
                "file to UTF-8."
            ) from None
        yield text
