"""Template: the words and tags around what a user gives, as tasks.json has them."""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..errors import InvalidInputError, shown

__all__ = ["Template"]


@dataclass(frozen=True)
class Template:
    """A text with slots, like "<translate> {text} <{to}>:". Braces of the text itself are doubled.

    Raises:
        InvalidInputError: a brace is not closed, or a slot is more than a name.
    """

    source: str

    def __post_init__(self) -> None:
        for literal, slot in self._parts():
            if slot is not None and not slot.isidentifier():
                raise InvalidInputError(
                    f"the template {shown(self.source)} has the slot {{{slot}}} behind {shown(literal)}; "
                    "a slot is a name in braces, like {text}."
                )

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots in their order, each once."""
        return tuple(dict.fromkeys(slot for _, slot in self._parts() if slot is not None))

    def fill(self, values: Mapping[str, str], trusted: Collection[str] = ()) -> list[tuple[str, bool]]:
        """Return the filled template in parts: (text, whether its special tokens are read as such).

        Args:
            values: the text of each slot.
            trusted: slots whose text belongs to the template, like the code of a language.
        """
        parts: list[tuple[str, bool]] = []
        for literal, slot in self._parts():
            parts.append((literal, True))
            if slot is not None:
                parts.append((values[slot], slot in trusted))
        return parts

    def _parts(self) -> list[tuple[str, str | None]]:
        """(text, the slot behind it)."""
        try:
            parsed = list(string.Formatter().parse(self.source))
        except ValueError as error:
            raise InvalidInputError(
                f"the template {shown(self.source)} is not closed: {error}. Write {{{{ for a brace that is text."
            ) from None
        for _, slot, form, conversion in parsed:
            if slot is not None and (form or conversion):
                raise InvalidInputError(
                    f"the template {shown(self.source)} formats the slot {slot}; "
                    "a slot is a name in braces, like {text}."
                )
        return [(literal, slot) for literal, slot, _, _ in parsed]
