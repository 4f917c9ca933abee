"""Texts from a file, one in each line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import InvalidInputError
from .generate import DEFAULT_MODEL

__all__ = ["add_arguments", "lines_of", "opened"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what commands that read such a file have in common."""
    parser.add_argument("file", metavar="FILE", help='texts, one in each line; "-" is standard input')
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="MODEL", help="model folder, or nano (default)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all CPUs at hand)")
    parser.add_argument(
        "--no-cache", action="store_true", help="do not keep packed weights in the cache folder"
    )


def opened(name: str) -> BinaryIO:
    """The file, or standard input if it is called "-"."""
    if name == "-":
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise InvalidInputError(f"cannot read {name}: {error.strerror or error}.") from error


def lines_of(
    file: BinaryIO, numbers: list[int], read: Callable[[int], object] = lambda nbytes: None
) -> Iterator[str]:
    """The lines that are not empty; the number of the one given last is appended to `numbers`.

    Args:
        read: told the bytes of each line.
    """
    for number, line in enumerate(file, start=1):
        read(len(line))
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"line {number} is not UTF-8: byte {error.start} is {line[error.start]:#04x}. Convert the file to "
                "UTF-8."
            ) from None
        if text:
            numbers.append(number)
            yield text
