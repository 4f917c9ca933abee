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
from typing import TextIO

__all__ = [
    "PROGRAM",
    "discard_output",
    "one_line",
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
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


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
    """Show warnings to users as lines on standard error; those for developers stay as Python has them."""
    show = warnings.showwarning

    def show_line(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UserWarning):
            say(f"warning: {' '.join(str(message).split())}")
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = show_line
        yield
