"""Reads the values of a JSON file, and says where one is not as it must be."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

__all__ = [
    "Fault",
    "JsonPath",
    "check_keys",
    "count_of",
    "nearest",
    "number_of",
    "object_of",
    "one_of",
    "shown",
    "text_of",
    "texts_of",
]

JsonPath = tuple[str | int, ...]
"""Keys and indices from the outermost value on."""

Choice = TypeVar("Choice")


class Fault(Exception):
    """Something in the file is not allowed."""

    def __init__(self, path: JsonPath, message: str) -> None:
        super().__init__(message)
        self.path = path


def check_keys(entry: Any, path: JsonPath, *, required: Sequence[str], optional: Sequence[str]) -> None:
    """Check that an object has the required keys, and no unknown one."""
    object_of(entry, path)
    for key in required:
        if key not in entry:
            raise Fault(path, f"it has no {key!r}.")
    known = (*required, *optional)
    for key in entry:
        if key not in known:
            raise Fault(
                (*path, key), f"this key is not known; known are {', '.join(known)}.{nearest(key, known)}"
            )


def object_of(value: Any, path: JsonPath) -> dict[str, Any]:
    """Return a value that must be an object."""
    if not isinstance(value, dict):
        raise Fault(path, f"it is {shown(value)}; it must be an object.")
    return value


def text_of(value: Any, path: JsonPath) -> str:
    """Return a value that must be a text of at least one character."""
    if not isinstance(value, str) or not value:
        raise Fault(path, f"it is {shown(value)}; it must be a text of at least one character.")
    return value


def texts_of(value: Any, path: JsonPath) -> tuple[str, ...]:
    """Return a value that must be a list of texts, each once."""
    if not isinstance(value, list):
        raise Fault(path, f"it is {shown(value)}; it must be a list of texts.")
    texts = [text_of(item, (*path, index)) for index, item in enumerate(value)]
    for index, text in enumerate(texts):
        if text in texts[:index]:
            raise Fault((*path, index), f"{text!r} stands in the list twice.")
    return tuple(texts)


def one_of(value: Any, allowed: Sequence[Choice], path: JsonPath) -> Choice:
    """Return the allowed value that a value is."""
    for choice in allowed:
        if value == choice:
            return choice
    raise Fault(path, f"it is {shown(value)}; it must be one of {', '.join(map(str, allowed))}.")


def count_of(value: Any, path: JsonPath) -> int | None:
    """Return a value that must be an integer of at least 1, or None."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise Fault(path, f"it is {shown(value)}; it must be an integer of at least 1.")


def number_of(value: Any, path: JsonPath) -> float:
    """Return a value that must be a number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise Fault(path, f"it is {shown(value)}; it must be a number.")


def shown(value: Any) -> str:
    """Return how a message shows a value."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return json.dumps(value, ensure_ascii=False)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the known name nearest to one, or ""."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {found[0]}?" if found else ""
