"""Checks that a text is made of characters: half a surrogate pair is none, and UTF-8 cannot write it."""

from __future__ import annotations

from ..errors import InvalidInputError

__all__ = ["check_characters"]


def check_characters(text: str, name: str = "the text") -> None:
    """Raise InvalidInputError if a text holds half a surrogate pair; `name` is what messages call the text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} holds {text[error.start]!a} at position {error.start}, half a surrogate pair, "
            "which is no character. It was probably read with the wrong encoding: read it as UTF-8."
        ) from error
