"""The oracle of constraints: sets of texts that are looked through, without an automaton or a grammar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sabiyarn_edge.constraints.constraint import ConstraintState


class Language(Protocol):
    """A set of texts, in bytes."""

    def has(self, text: bytes) -> bool:
        """Whether the text is in the set."""

    def begins(self, text: bytes) -> bool:
        """Whether a text of the set begins with this one."""


@dataclass(frozen=True)
class Texts:
    """A finite set."""

    texts: frozenset[bytes]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        return cls(frozenset(text.encode() for text in texts))

    def has(self, text: bytes) -> bool:
        return text in self.texts

    def begins(self, text: bytes) -> bool:
        return any(other.startswith(text) for other in self.texts)


@dataclass(frozen=True)
class Matches:
    """All texts that match a regular expression; the package `regex` knows which texts can still become one."""

    pattern: bytes

    def has(self, text: bytes) -> bool:
        return _regex().fullmatch(self.pattern, text) is not None

    def begins(self, text: bytes) -> bool:
        return _regex().fullmatch(self.pattern, text, partial=True) is not None


def _regex() -> Any:
    import regex

    return regex


def allowed_tokens(language: Language, text: bytes, tokens: Mapping[int, bytes]) -> set[int]:
    """The tokens behind which the text can still become one of the language."""
    return {token for token, written in tokens.items() if written and language.begins(text + written)}


def writable_tokens(texts: Texts, text: bytes, tokens: Mapping[int, bytes]) -> set[int]:
    """As allowed_tokens, without those behind which no tokens write the rest of any text."""

    def can_end(at: bytes) -> bool:
        return texts.has(at) or any(can_end(at + tokens[t]) for t in allowed_tokens(texts, at, tokens))

    return {t for t in allowed_tokens(texts, text, tokens) if can_end(text + tokens[t])}


def mask_of(state: ConstraintState, vocab_size: int) -> set[int]:
    """The ids whose bits a constraint sets."""
    mask = np.zeros(vocab_size // 32 + 1, np.uint32)
    state.allow(mask)
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[:vocab_size]
    return set(np.flatnonzero(bits).tolist())
