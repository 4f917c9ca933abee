"""ConstrainedRows: the rows of one DecodeState, each with its own place in the constraint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import DecodeState
from ..errors import InvalidInputError
from .constraint import Constraint, ConstraintState

__all__ = ["ConstrainedRows"]


class ConstrainedRows:
    """Follows the rows as they are forked, reordered and dropped, and says what each may generate next.

    Args:
        constraint: of every row.
        end_tokens: ids that end a row; allowed where the text, with what they write, is complete.
        others: names of the other options that may forbid tokens.
    """

    def __init__(self, constraint: Constraint, end_tokens: Sequence[int], others: Sequence[str]) -> None:
        self._constraint, self._end_tokens, self._others = constraint, end_tokens, others
        self._masks: NDArray[np.uint32] | None = None
        self._states: list[
            ConstraintState | None
        ] = []  # of each row; None: it took a token that was not allowed
        self._chosen: dict[tuple[int, int], ConstraintState | None] = {}  # by row and token

    def hooks(self, given: dict[str, Any]) -> dict[str, Any]:
        """The hooks for a DecodeLoop, with those of the caller."""
        return {
            **given,
            "before_scores": _both(given.get("before_scores"), self._allow),
            "after_choice": _either(given.get("after_choice"), self._ends),
            "no_token_left": self._refusal,
        }

    def _allow(self, state: DecodeState) -> None:
        if self._masks is None:
            self._masks = state.token_masks
            self._states = [self._constraint.start() for _ in range(state.num_rows)]
        else:
            self._follow(state)
        for mask, at in zip(self._masks, self._states, strict=False):
            mask.fill(0)
            if at is None:
                continue
            at.allow(mask)
            for token in self._end_tokens:
                bit = np.uint32(1 << token % 32)
                if self._may_end(at, token, is_next=bool(mask[token // 32] & bit)):
                    mask[token // 32] |= bit
                else:
                    mask[token // 32] &= ~bit

    def _may_end(self, at: ConstraintState, token: int, *, is_next: bool) -> bool:
        if at.is_complete and not self._constraint.writes_text(token):
            return True
        if not is_next:
            return False
        after = at.fork()
        return after.take(token) and after.is_complete

    def _follow(self, state: DecodeState) -> None:
        """Bring the states into the order of the rows."""
        taken = set()
        self._states = []
        for key in zip(state.row_sources.tolist(), state.next_tokens.tolist(), strict=True):
            at = self._chosen[key]
            self._states.append(at.fork() if at is not None and key in taken else at)
            taken.add(key)

    def _ends(self, state: DecodeState) -> list[bool]:
        """Whether each candidate ends its row: nothing may follow it."""
        candidates = state.candidates()
        self._chosen = {}
        forks = len(candidates) > len(self._states)
        ends = []
        for row, token in candidates:
            if (row, token) not in self._chosen:
                at = self._states[row]
                if at is not None:
                    at = at.fork() if forks else at
                    at = at if at.take(token) else None
                self._chosen[row, token] = at
            at = self._chosen[row, token]
            ends.append(at is not None and at.is_final)
        return ends

    def _refusal(self) -> InvalidInputError:
        name = self._constraint.option
        if self._others:
            return InvalidInputError(
                f"{name} and {', '.join(self._others)} together leave no token to choose. Leave some of them out."
            )
        return InvalidInputError(
            f"{name} leaves no token to choose: the model's tokens cannot write what must come next."
        )


def _both(
    first: Callable[[DecodeState], None] | None, second: Callable[[DecodeState], None]
) -> Callable[[DecodeState], None]:
    if first is None:
        return second

    def both(state: DecodeState) -> None:
        first(state)
        second(state)

    return both


def _either(
    first: Callable[[DecodeState], list[bool]] | None, second: Callable[[DecodeState], list[bool]]
) -> Callable[[DecodeState], list[bool]]:
    if first is None:
        return second
    return lambda state: [a or b for a, b in zip(first(state), second(state), strict=True)]
