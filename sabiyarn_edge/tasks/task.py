"""Task: what a model can be asked to do, and how: a template, what fills it, and how the answer is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .names import find_name
from .template import Template
from .units import Unit

__all__ = ["ANSWERS", "TEXT_SLOT", "Answer", "Language", "Task"]

Answer = Literal["text", "raw", "label", "tags"]
ANSWERS: tuple[Answer, ...] = ("text", "raw", "label", "tags")
"""How what a model gives is read: as text without outer white space, as text, as one of the labels (which are scored,
not generated), or as a tag for each word."""

TEXT_SLOT = "text"
"""The slot whose text may be cut into units."""


@dataclass(frozen=True)
class Language:
    """A language by its code, which stands in the model's tags."""

    code: str
    """As in the tags: ISO 639-3, with few exceptions."""
    name: str
    """In English."""
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All but the code."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One entry of tasks.json."""

    name: str
    description: str = ""
    """What it does, one clause."""
    template: Template
    """The prompt."""
    languages: Mapping[str, Mapping[str, Language]] = field(default_factory=dict)
    """Slots that hold a language's code -> the languages that they take, by code."""
    sources: Mapping[str, Language] = field(default_factory=dict)
    """Languages that the text may have, by code; empty: any."""
    answer: Answer = "text"
    labels: tuple[str, ...] = ()
    """With answer "label": the labels; empty: the caller gives them."""
    label_template: Template = field(default_factory=lambda: Template(" {label}"))
    """With answer "label": how a label follows the prompt."""
    unit: Unit = "text"
    """What of the slot "text" is read at once; longer texts are cut, and the answers joined as the text was."""
    max_words: int | None = None
    """The slot "text" is cut to so many words. None: it is not."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of GenerationConfig."""
    example: Mapping[str, str] = field(default_factory=dict)
    """What fills the slots to try the task; empty: none is given."""

    @property
    def text_slots(self) -> tuple[str, ...]:
        """Slots that hold a user's text, in the template's order."""
        return tuple(slot for slot in self.template.slots if slot not in self.languages)

    def language(self, slot: str, given: object) -> str:
        """Return the code of the language that a caller names for a slot.

        Raises:
            InvalidInputError: the slot does not take it; lists what it takes.
        """
        return _code(slot, given, self.languages[slot])

    def source(self, given: object) -> str:
        """Return the code of the text's language. Raises: as `language`."""
        return _code("source", given, self.sources)

    def describe(self) -> dict[str, Any]:
        """Facts about the task, ready for JSON."""
        return {
            "description": self.description,
            "template": self.template.source,
            "slots": list(self.template.slots),
            "languages": {slot: _names(languages) for slot, languages in self.languages.items()},
            "sources": _names(self.sources),
            "labels": list(self.labels),
            "answer": self.answer,
            "options": dict(self.options),
            "example": dict(self.example),
        }


def _names(languages: Mapping[str, Language]) -> dict[str, str]:
    return {code: language.name for code, language in languages.items()}


def _code(what: str, given: object, languages: Mapping[str, Language]) -> str:
    return find_name(what, given, {code: language.names for code, language in languages.items()})
