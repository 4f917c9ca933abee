"""Standard output and standard error, as all commands use them."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from ..errors import InvalidInputError
from ..system.standard_output import output_errors_named

__all__ = [
    "PROGRAM",
    "discard_output",
    "one_line",
    "output_named",
    "prepare_streams",
    "printable",
    "say",
    "warnings_as_lines",
]

PROGRAM = "sabiyarn-edge"


def prepare_streams() -> None:
    """Write UTF-8 whatever the locale says: the texts are Yoruba, and a C locale knows ASCII only."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell (>&-)
            # Open to the end: it keeps the number of the closed stream from a file that is opened later.
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, _Closed(nowhere) if name == "stdout" else nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


class _Closed(io.TextIOBase):
    """In place of a closed standard output: an error for who writes to it, and for nobody else."""

    def __init__(self, nowhere: TextIO) -> None:
        self._nowhere = nowhere

    def writable(self) -> bool:
        return False

    def write(self, text: str, /) -> int:
        raise InvalidInputError("standard output is closed. Give it a file or a pipe.")


class _Output:
    """Standard output whose errors say that they are its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def write(self, text: str) -> int:
        with output_errors_named():
            return self._stream.write(text)

    def flush(self) -> None:
        with output_errors_named():
            self._stream.flush()


@contextmanager
def output_named() -> Iterator[None]:
    """Let errors of standard output say that they are its own: a full disk has no name for it."""
    stream = sys.stdout
    sys.stdout = cast("TextIO", _Output(stream))
    try:
        yield
    finally:
        sys.stdout = stream


def say(message: str) -> None:
    """Write one line to standard error, with the program's name; what a terminal would act on is written out."""
    print(f"{PROGRAM}: {printable(message)}", file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """Return an error's text without line breaks and control characters: it may quote a file from anywhere."""
    return printable(" ".join(str(error).split()))


def printable(text: str) -> str:
    """Write control and format characters out (\\x1b, \\u202e): a terminal would act on them. Line breaks stay.

    A zero width joiner, which some scripts need between letters, is one of them; names and messages do without.
    """
    return "".join(
        char if char == "\n" or not unicodedata.category(char).startswith("C") else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def discard_output() -> None:
    """Discard standard output's buffer: it cannot be written, and Python would try again at exit."""
    try:
        target = sys.stdout.fileno()
    except (OSError, ValueError):  # not a real file, as in tests
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, target)
    os.close(nowhere)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show warnings to users as lines on standard error, each once; those for developers stay as Python has them."""
    show = warnings.showwarning
    said = set()

    def show_line(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UserWarning):
            text = " ".join(str(message).split())
            if text not in said:
                said.add(text)
                say(f"warning: {text}")
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = show_line
        yield
