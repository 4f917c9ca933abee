"""Grammar: the output fits a JSON schema, a regular expression or a Lark grammar. llguidance follows it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError, shortened, shown
from ..system.installation import install_command
from ..system.json_text import parse_json
from .vocabulary import ConstraintVocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher

__all__ = ["Grammar"]

_WHITESPACE = r"[ ]|\n[ ]{0,16}"
"""What JSON may have between two tokens of its own: a blank, or a line break and an indentation. JSON's own rule has no
bound, so that a model could go on with blanks until its tokens end."""

_ANY_TOKENS = '\n%llguidance {"no_forcing": true}\n'
"""Allows every row of tokens that writes a text, not only the one that the tokenizer would make of it."""

_NOTHING_FOLLOWS = "NoExtensionBias"
"""llguidance's name for a form that neither is complete nor can go on."""

_PLACE = re.compile(r"^at \d+\(\d+\): (failed to compile JSON schema: )?")
"""How llguidance begins an error."""

_TOLD_CHARACTERS = 600
"""Of what the parser of grammars says, which quotes whole lines."""


class Grammar:
    """A compiled grammar.

    Args:
        option: "json_schema", "json_object", "regex" or "grammar".
        value: of that option.
        vocabulary: the model's.

    Raises:
        InvalidInputError: llguidance is not installed, or refuses the grammar, or the grammar is too complex.
    """

    def __init__(self, option: str, value: Any, vocabulary: ConstraintVocabulary) -> None:
        try:
            from llguidance import LLMatcher
        except ModuleNotFoundError as error:
            raise InvalidInputError(
                f"{option} needs the package {error.name}, which is not installed. Run: "
                f"{install_command('json')}"
            ) from error
        self.option = option
        try:
            lark = _as_lark(option, value) + _ANY_TOKENS
            self._start = LLMatcher(vocabulary.guidance, lark, log_level=0)
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"{option} holds half a surrogate pair at index {error.start}, which is no character."
            ) from error
        told = self._start.get_error()
        if "lexer precomputation failed" in told or "fuel exhausted" in told:
            raise InvalidInputError(
                f"{option} is too complex: following it would take too many states. Simplify it, as by fewer "
                "repetitions (*, +, ?) one after another."
            )
        if told:
            if option != "grammar":  # the text around it is ours: its places mean nothing to the caller
                told = _PLACE.sub("", told.partition("\n   1 | start: ")[0])
            told = " ".join(told.replace(_ANY_TOKENS.strip(), "").split())
            raise InvalidInputError(f"{option} cannot be used: {shortened(told, _TOLD_CHARACTERS)}")
        self._not_first = _mask_of_others(vocabulary)
        self.writes_text = vocabulary.writes_text

    def start(self) -> _GrammarState:
        """See Constraint."""
        return _GrammarState(self.option, self._start.deep_copy(), self._not_first)


def _as_lark(option: str, value: Any) -> str:
    if option == "grammar":
        return str(value)
    if option == "regex":
        from llguidance import regex_to_lark

        return f"start: /{regex_to_lark(value, use_ascii='')}/"
    schema: dict[str, Any] = {"type": "object"}
    if option == "json_schema":
        schema = {} if value == "true" else parse_json(value)
    given = schema.get("x-guidance", {})
    if not isinstance(given, dict):
        raise InvalidInputError(f"{option} has x-guidance {shown(given)}; it must be a JSON object.")
    return (
        f"start: %json {json.dumps({**schema, 'x-guidance': {'whitespace_pattern': _WHITESPACE, **given}})}"
    )


def _mask_of_others(vocabulary: ConstraintVocabulary) -> NDArray[np.uint32] | None:
    """A mask without the tokens that cannot begin a text; None: all can."""
    if not vocabulary.not_first:
        return None
    mask = np.full(vocabulary.vocab_size // 32 + 1, 0xFFFFFFFF, np.uint32)
    for token in vocabulary.not_first:
        mask[token // 32] &= np.uint32(0xFFFFFFFF ^ (1 << token % 32))
    return mask


@dataclass
class _GrammarState:
    option: str
    matcher: LLMatcher
    not_first: NDArray[np.uint32] | None
    """At the beginning: a mask of the tokens that may begin a text."""
    begun: bool = False

    def allow(self, mask: NDArray[np.uint32]) -> None:
        self.matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self.matcher.is_error():
            raise InvalidInputError(self._problem(self.matcher.get_error()))
        if self.not_first is not None:
            mask &= self.not_first

    def _problem(self, told: str) -> str:
        if _NOTHING_FOLLOWS not in told:
            reason = shortened(told.partition("<state>")[0])  # the parser's tables follow
            return f"{self.option} is too complex: {reason}. Simplify it."
        if self.begun:
            return (
                f"{self.option} is a dead end: no text that begins with what was generated fits it. Mend it."
            )
        return f"{self.option} is a form that no text fits. Mend it."

    def take(self, token: int) -> bool:
        self.not_first, self.begun = None, True
        return self.matcher.consume_token(token)

    def fork(self) -> _GrammarState:
        return _GrammarState(self.option, self.matcher.deep_copy(), self.not_first, self.begun)

    @property
    def is_complete(self) -> bool:
        return self.matcher.is_accepting()

    @property
    def is_final(self) -> bool:
        return self.matcher.is_stopped() and self.matcher.is_accepting()
