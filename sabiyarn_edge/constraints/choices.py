"""Choices: the output is one of several texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._core import ChoiceAutomaton
from ..errors import InvalidInputError, shown
from .vocabulary import ConstraintVocabulary

__all__ = ["Choices"]


class Choices:
    """Any tokens whose bytes write one of the texts.

    Raises:
        InvalidInputError: the vocabulary cannot write one of them.
    """

    option = "choices"

    def __init__(self, texts: Sequence[str], vocabulary: ConstraintVocabulary) -> None:
        self._automaton = ChoiceAutomaton(
            [text.encode() for text in texts], vocabulary.order, vocabulary.not_first
        )
        if unwritable := [text.decode() for text in self._automaton.unwritable]:
            raise InvalidInputError(
                f"choices holds {shown(unwritable[0])}, which the model's tokens cannot write. Leave it out."
            )

        self.writes_text = vocabulary.writes_text

    def start(self) -> _ChoiceState:
        """See Constraint."""
        return _ChoiceState(self._automaton)


@dataclass
class _ChoiceState:
    automaton: ChoiceAutomaton
    at: int = 0

    def allow(self, mask: NDArray[np.uint32]) -> None:
        self.automaton.allow(self.at, mask)

    def take(self, token: int) -> bool:
        self.at = self.automaton.next(self.at, token)
        return self.at >= 0

    def fork(self) -> _ChoiceState:
        return _ChoiceState(self.automaton, self.at)

    @property
    def is_complete(self) -> bool:
        return self.automaton.is_complete(self.at)

    @property
    def is_final(self) -> bool:
        return self.is_complete and not self.automaton.can_go_on(self.at)
