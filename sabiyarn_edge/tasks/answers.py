"""What tasks give, where it is more than a text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Classification", "Entity", "Word", "read_entities", "split_words"]


@dataclass(frozen=True)
class Classification:
    """How likely each label is for a text."""

    probabilities: dict[str, float]
    """Label -> probability; they sum to 1. The likeliest comes first."""

    @property
    def label(self) -> str:
        """The likeliest label."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """Its probability."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class Entity:
    """A name that stands in a text."""

    label: str
    """What kind it is: "PER", "LOC", "ORG" or "DATE" with SabiYarn."""
    text: str
    """The text's characters from start to end."""
    start: int
    """Index of its first character."""
    end: int
    """Index behind its last character."""


@dataclass(frozen=True)
class Word:
    """A word or a punctuation mark of a text."""

    text: str
    start: int
    """Index of its first character."""

    @property
    def end(self) -> int:
        """Index behind its last character."""
        return self.start + len(self.text)


def split_words(text: str) -> list[Word]:
    """Cut a text at white space, and punctuation off both ends of its words: each mark is a word of its own."""
    words = []
    start = 0
    for piece in text.split():
        start = text.index(piece, start)
        first, last = 0, len(piece)
        while first < last and _is_mark(piece[first]):
            first += 1
        while last > first and _is_mark(piece[last - 1]):
            last -= 1
        words += [Word(mark, start + at) for at, mark in enumerate(piece[:first])]
        if first < last:
            words.append(Word(piece[first:last], start + first))
        words += [Word(mark, start + at) for at, mark in enumerate(piece[last:], start=last)]
        start += len(piece)
    return words


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] in "PS"


def read_entities(text: str, words: Sequence[Word], tags: Sequence[str], offset: int = 0) -> list[Entity]:
    """Join the words of each name.

    Args:
        text: that the words' indices refer to, less `offset`.
        words: of the text.
        tags: one for each word: "B-LABEL" begins a name, "I-LABEL" continues one of the same label, or else begins
            one; all others are outside. Words without a tag are outside, surplus tags are ignored.
        offset: added to the entities' indices.
    """
    spans: list[tuple[str, int, int]] = []
    before = ""
    for word, tag in zip(words, tags, strict=False):
        position, dash, label = tag.partition("-")
        inside = dash and label and position in ("B", "I")
        if not inside:
            before = ""
            continue
        if position == "I" and label == before:
            spans[-1] = (label, spans[-1][1], word.end)
        else:
            spans.append((label, word.start, word.end))
        before = label
    return [Entity(label, text[start:end], start + offset, end + offset) for label, start, end in spans]
