"""What a constraint is: a set of texts, and the way through them token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Constraint", "ConstraintState", "is_satisfied"]


class ConstraintState(Protocol):
    """Where one row stands in a constraint."""

    def allow(self, mask: NDArray[np.uint32]) -> None:
        """Set the bits of the tokens that may come next.

        Args:
            mask: zeros, uint32 [vocab_size // 32 + 1]; bit i of word w is id 32 * w + i. The bit of the id behind the
                last means nothing.
        """

    def take(self, token: int) -> bool:
        """Append a token. Returns False if it was not allowed; the state is then of no further use."""

    def fork(self) -> ConstraintState:
        """Return another state at the same place."""

    @property
    def is_complete(self) -> bool:
        """Whether the text so far satisfies the constraint."""

    @property
    def is_final(self) -> bool:
        """Whether it does, and no longer text that begins with it does."""


class Constraint(Protocol):
    """A set of texts that an output may be. Any number of threads may use one."""

    @property
    def option(self) -> str:
        """The option of GenerationConfig that asks for it."""

    def start(self) -> ConstraintState:
        """Return the state of a row that has generated nothing."""

    def writes_text(self, token: int) -> bool:
        """Return whether a token adds anything to the text."""


def is_satisfied(constraint: Constraint, generated: Sequence[int], end_tokens: Sequence[int]) -> bool:
    """Whether a row's output satisfies a constraint, or was cut before.

    Args:
        generated: all ids of the output, an end token included.
        end_tokens: ids that end a row.
    """
    state = constraint.start()
    for place, token in enumerate(generated):
        is_end = token in end_tokens and place == len(generated) - 1
        if is_end and state.is_complete and not constraint.writes_text(token):
            return True
        if not state.take(token):
            return False
    return state.is_complete
