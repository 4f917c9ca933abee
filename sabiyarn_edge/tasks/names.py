"""Finds what a caller names: a language, a label or a task, by its name or an alias."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Mapping

from ..errors import InvalidInputError, shown

__all__ = ["find_name", "fold"]


def fold(name: str) -> str:
    """Return a name without case, marks and outer spaces: "Yorùbá" and "yoruba" are the same."""
    letters = unicodedata.normalize("NFD", name.strip().replace("_", "-"))
    return "".join(char for char in letters if not unicodedata.combining(char)).casefold()


def find_name(what: str, given: object, known: Mapping[str, Iterable[str]]) -> str:
    """Return the key that `given` names.

    Args:
        what: the argument's name, for the message.
        given: a key, or one of its other names; case and marks do not matter.
        known: key -> other names, the first of which is shown.

    Raises:
        InvalidInputError: there is no such key; lists all, and names the nearest.
    """
    names = {fold(key): key for key in known}
    for key, others in known.items():
        for other in others:
            names.setdefault(fold(other), key)
    if isinstance(given, str) and fold(given) in names:
        return names[fold(given)]
    choices = {key: _shown(key, others) for key, others in known.items()}
    nearest = difflib.get_close_matches(fold(given), names, n=1) if isinstance(given, str) else []
    advice = f" Did you mean {choices[names[nearest[0]]]}?" if nearest else ""
    raise InvalidInputError(
        f"{what} is {shown(given)}; it must be one of {', '.join(choices.values())}.{advice}"
    )


def _shown(key: str, others: Iterable[str]) -> str:
    name = next(iter(others), None)
    return key if name is None or fold(name) == fold(key) else f"{key} ({name})"
