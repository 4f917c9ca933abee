"""ConstraintCompiler: from the options of a call to its constraint. What was compiled lately is kept."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import Any

from ..errors import InvalidInputError, shown
from ..options.generation_config import GenerationConfig
from ..text.tokenizer import Tokenizer
from .choices import Choices
from .constraint import Constraint
from .vocabulary import ConstraintVocabulary

__all__ = ["ConstraintCompiler"]

_KEPT = 16
"""Constraints that are kept: a server's clients ask for few different ones at a time."""


class ConstraintCompiler:
    """Compiles constraints for one model; for any number of threads.

    Args:
        tokenizer: the model's; None: calls with a constraint are refused.
        vocab_size: the model's.
    """

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._vocabulary: ConstraintVocabulary | None = None
        self._kept: OrderedDict[tuple[str, Any], Constraint] = OrderedDict()
        self._lock = threading.Lock()
        """Guards what is kept; held for a moment."""
        self._compiling = threading.Lock()
        """Held while one is compiled, which may take seconds."""

    def is_kept(self, config: GenerationConfig) -> bool:
        """Return whether the constraint of a call, if it has one, needs no compiling."""
        return config.constraint is None or self._found(config.constraint) is not None

    def constraint_of(self, config: GenerationConfig) -> Constraint | None:
        """Return the constraint that a call asks for, or None.

        Raises:
            InvalidInputError: there is no tokenizer, llguidance is needed and not installed, or the constraint cannot
                be compiled; it says which keyword is not implemented, or where a grammar is wrong.
        """
        if config.constraint is None:
            return None
        found = self._found(config.constraint)
        if found is None:
            with self._compiling:  # not self._lock: calls whose constraint is kept do not wait
                found = self._found(config.constraint) or self._keep(config.constraint)
        _check_ends(config)
        return found

    def _found(self, asked: tuple[str, Any]) -> Constraint | None:
        with self._lock:
            if asked in self._kept:
                self._kept.move_to_end(asked)
            return self._kept.get(asked)

    def _keep(self, asked: tuple[str, Any]) -> Constraint:
        made = self._compile(*asked)
        with self._lock:
            self._kept[asked] = made
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made

    def _compile(self, option: str, value: Any) -> Constraint:
        if self._tokenizer is None:
            raise InvalidInputError(
                f"{option} needs a tokenizer, but there is none here. Put the model's tokenizer.json into its folder, "
                "or give the torch model's generate() a tokenizer."
            )
        if self._vocabulary is None:
            self._vocabulary = ConstraintVocabulary(self._tokenizer, self._vocab_size)
        if option == "choices":
            return Choices(value, self._vocabulary)
        from .grammars import Grammar

        return Grammar(option, value, self._vocabulary)


def _check_ends(config: GenerationConfig) -> None:
    """Refuse choices of which one begins another where no end token could end the shorter one."""
    if config.eos_token_ids:
        return
    ordered = sorted(config.choices or ())
    for shorter, longer in itertools.pairwise(ordered):
        if longer.startswith(shorter) and longer != shorter:
            raise InvalidInputError(
                f"choices holds {shown(shorter)}, with which {shown(longer)} begins, and there is no eos_token_id "
                "that could end it there. Give an eos_token_id, or choices that do not begin with one another."
            )
