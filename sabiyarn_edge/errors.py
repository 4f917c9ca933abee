"""Errors that a user can cause, and can mend. Each message says what was given, what is allowed and what to do."""

from __future__ import annotations

import reprlib

__all__ = [
    "WHY_NAN",
    "CheckpointError",
    "ExportError",
    "InvalidInputError",
    "JobError",
    "ModelFolderError",
    "NumericalError",
    "OutOfMemoryError",
    "SabiYarnError",
    "SessionFileError",
    "bounded",
    "nan_error",
    "shortened",
    "shown",
]

_SHOWN_CHARACTERS = 80
_MESSAGE_CHARACTERS = 4000


def bounded(message: str) -> str:
    """Shorten a message in the middle to 4000 characters, and write half surrogate pairs out: any stream takes it."""
    if len(message) > _MESSAGE_CHARACTERS:
        begin, end = _MESSAGE_CHARACTERS * 3 // 4, _MESSAGE_CHARACTERS // 4 - 5
        message = f"{message[:begin]} ... {message[-end:]}"
    return message.encode(errors="backslashreplace").decode()


class SabiYarnError(Exception):
    """Base of every error that this package raises on purpose; the command line prints it without a traceback.

    A message is kept within bounds, since it may quote what came from anywhere.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(bounded(each) if isinstance(each, str) else each for each in arguments))


class InvalidInputError(SabiYarnError, ValueError):
    """An argument, a prompt or an option is outside what is allowed."""


class ModelFolderError(SabiYarnError):
    """A model folder lacks a file, or its files are damaged or do not belong together."""


class OutOfMemoryError(SabiYarnError, MemoryError):
    """The machine, the control group or a limit has not the memory that loading a model or a call takes."""


class CheckpointError(SabiYarnError):
    """A torch checkpoint cannot be read, its tensors do not fit its config, or its model computes NaN or infinity."""


class ExportError(SabiYarnError):
    """An export could not be finished; nothing was left at the target."""


class NumericalError(SabiYarnError):
    """The model or a callback produced numbers that cannot be used: NaN, no token left to choose, too large a key."""


WHY_NAN = (
    "Its weights may be damaged; or, with a float16 KV cache, its keys or values go beyond 65504: export it with "
    "--kv-cache-dtype float32 or int8."
)


class SessionFileError(SabiYarnError):
    """A saved session cannot be written or read, or does not belong to this model."""


class JobError(SabiYarnError):
    """A job over a corpus cannot begin or go on: its output is another job's, is held by a process, or has no room."""


def nan_error(place: str) -> NumericalError:
    """For NaN from the model.

    Args:
        place: what it was computing.
    """
    return NumericalError(f"the model gave NaN for {place}. {WHY_NAN}")


_REPR = reprlib.Repr()  # of a list that holds another one twice, and so on, repr() would be without end
_REPR.maxlevel = 3
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = _REPR.maxfrozenset = _SHOWN_CHARACTERS // 3
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 10 * _SHOWN_CHARACTERS


def shown(value: object) -> str:
    """Return any value for a message: its `repr`, on one line, cut to 80 characters."""
    try:
        text = hex(value) if isinstance(value, int) and value.bit_length() > 256 else _REPR.repr(value)
    except Exception:  # somebody else's class
        text = f"<{type(value).__name__}>"
    return shortened(text)


def shortened(text: str, at_most: int = _SHOWN_CHARACTERS) -> str:
    """A text for a message: one line of at most so many characters."""
    text = " ".join(text.split())
    return text if len(text) <= at_most else f"{text[: at_most - 3]}..."
