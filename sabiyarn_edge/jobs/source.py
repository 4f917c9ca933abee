"""Source: the lines of an input, with a digest of what was read up to each of them.

The digest is how a job that is resumed knows that the lines it has done are still the same.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import operator
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from ..errors import InvalidInputError, shortened, shown
from ..options import checks as check
from .endings import is_packed

__all__ = ["MAX_LINE_BYTES", "Line", "Position", "Source"]

MAX_LINE_BYTES = 2**22
"""Of a line. A longer one would fit no model's positions, and is skipped without holding it in memory."""
_BLOCK_BYTES = 2**20
_BOM = b"\xef\xbb\xbf"


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def copy(self) -> _Hash: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Position:
    """How far an input was read: behind a line."""

    lines: int
    """Lines, empty ones included."""
    nbytes: int
    """Their bytes; of a compressed input, what they are unpacked."""
    _hash: _Hash

    @property
    def digest(self) -> str:
        """SHA-256 of these bytes."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Line:
    """One line."""

    number: int
    """From 1."""
    content: bytes | None
    """Without its line break; None: it is longer than MAX_LINE_BYTES."""
    end: Position
    """Behind it."""


class Source:
    """Reads an input from its first line to its last, once.

    Args:
        given: a path ("-": standard input; an ending .gz: compressed), or strings and mappings, which become lines of
            JSON.

    Raises:
        InvalidInputError: the file cannot be read.
    """

    def __init__(self, given: str | Path | Iterable[str | Mapping[str, Any]]) -> None:
        self.name, self.total_bytes = "the input", 0
        self._stored: BinaryIO | None = None
        if not isinstance(given, str | Path):
            self._file: BinaryIO = cast("BinaryIO", io.BufferedReader(_JsonLines(_checked(given))))
        elif str(given) == "-":
            if sys.stdin is None:  # closed by the shell (<&-)
                raise InvalidInputError("standard input is closed. Give a file, or texts through a pipe.")
            self.name, self._file = "standard input", sys.stdin.buffer
        else:
            self.name = str(given)
            self._open(check.path("input", given))
        self._position = Position(0, 0, hashlib.sha256())
        self._in_line = False

    def _open(self, path: Path) -> None:
        try:
            self._stored = path.open("rb")
            self.total_bytes = path.stat().st_size
        except OSError as error:
            raise InvalidInputError(
                f"cannot read {shortened(str(path), 600)}: {error.strerror or error}."
            ) from error
        packed = is_packed(path)
        self._file = cast("BinaryIO", gzip.GzipFile(fileobj=self._stored)) if packed else self._stored

    def skip(self, nbytes: int, lines: int) -> Position:
        """Read the first `nbytes` without looking at their lines.

        Returns:
            The position behind them. It has fewer bytes if the input has.
        """
        digest, left = hashlib.sha256(), nbytes
        while left and (block := self._read(self._file.read, min(left, _BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
            self._in_line = not block.endswith(b"\n")
        self._position = Position(lines, nbytes - left, digest)
        return self._position

    def finish_line(self) -> bool:
        """Read the line break of the last line that was skipped, if that had none at the end of the input.

        Returns:
            False: more text stands there, so that the line is another one now.
        """
        rest = self._read(self._file.readline, MAX_LINE_BYTES) if self._in_line else b""
        position = self._position
        position._hash.update(rest)
        self._position = Position(position.lines, position.nbytes + len(rest), position._hash)
        return not rest.strip(b"\r\n")

    def __iter__(self) -> Iterator[Line]:
        position = self._position
        number, nbytes, digest = position.lines, position.nbytes, position._hash
        while content := self._read(self._file.readline, MAX_LINE_BYTES + 1):
            number += 1
            digest = digest.copy()
            digest.update(content)
            nbytes += len(content)
            too_long = len(content) > MAX_LINE_BYTES
            rest = content
            while too_long and not rest.endswith(b"\n"):
                rest = self._read(self._file.readline, _BLOCK_BYTES)
                if not rest:
                    break
                digest.update(rest)
                nbytes += len(rest)
            text = content.removeprefix(_BOM) if number == 1 else content
            yield Line(number, None if too_long else text.rstrip(b"\r\n"), Position(number, nbytes, digest))

    def done_bytes(self, position: Position) -> int:
        """How much of `total_bytes` is read; of a compressed file, what was read ahead too."""
        packed = self._stored is not None and self._stored is not self._file
        return self._stored.tell() if packed and self._stored is not None else position.nbytes

    def close(self) -> None:
        """Close the file."""
        if self._stored is not None:
            self._stored.close()

    def _read(self, read: Callable[[int], bytes], most: int) -> bytes:
        try:
            return read(most)
        except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
            raise InvalidInputError(f"cannot read {self.name}: {error}. Copy the file again.") from error


def _checked(given: Any) -> Iterable[str | Mapping[str, Any]]:
    """What gives items. A table and a mapping give names of columns."""
    if isinstance(given, Mapping) or hasattr(given, "columns"):
        raise InvalidInputError(
            f"the input is a {type(given).__name__}, which gives the names of its columns. Give a list of rows, like "
            '[{"prompt": "..."}]; of a pandas.DataFrame to_dict("records").'
        )
    if not isinstance(given, Iterable):
        raise InvalidInputError(f"the input is {shown(given)}; it must be a path, or strings and mappings.")
    return given


class _JsonLines(io.RawIOBase):
    """Items as the bytes of a JSONL file."""

    def __init__(self, items: Iterable[str | Mapping[str, Any]]) -> None:
        self._items, self._left = iter(items), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            try:
                item = next(self._items)
            except StopIteration:
                return 0
            self._left = _encoded(item)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _encoded(item: object) -> bytes:
    if not isinstance(item, str | Mapping):
        raise InvalidInputError(
            f"the input holds a {type(item).__name__}; each item must be a string, or a mapping like a line of JSONL."
        )
    try:
        content = item if isinstance(item, str) else dict(item)
        return json.dumps(content, ensure_ascii=False, default=_integer).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"an item of the input cannot be written as JSON: {error}.") from error


def _integer(value: Any) -> int:
    """An integer of another library, as numpy.int64."""
    if not hasattr(value, "__index__"):
        raise TypeError(f"a {type(value).__name__} is no value of JSON")
    return operator.index(value)
