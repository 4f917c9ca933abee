"""Texts from a file, one in each line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import InvalidInputError

__all__ = ["lines_of", "opened"]


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
