"""How likely the model finds each of several continuations of one prompt, which is computed once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..engine.decoder import Decoder
from ..engine.rows import Row, Rows
from ..engine.work import Budget, Piece, Work
from ..errors import SabiYarnError, nan_error
from .scoring import log_prob

__all__ = ["MAX_BRANCHES", "ChoiceScoring"]

MAX_BRANCHES = 8
"""Continuations that are run at once, each in a row of its own: enough to fill runs, few enough to hold."""


class _Branch:
    """A continuation that is being run."""

    def __init__(self, choice: int, row: Row) -> None:
        self.choice, self.row = choice, row
        self.done = 0  # tokens that were run
        self.ran = 0  # in the run at hand


class ChoiceScoring(Work):
    """Scores the choices of one prompt.

    Args:
        prompt: at least one token.
        choices: tokens of each, at least one. Prompt and longest choice fit into the model's positions.
        reuse_prefix: whether the prompt may begin with what is known of other texts.
        needed_bytes: see Work.
    """

    due = False

    def __init__(
        self,
        prompt: Sequence[int],
        choices: Sequence[Sequence[int]],
        *,
        reuse_prefix: bool = True,
        needed_bytes: int = 0,
    ) -> None:
        super().__init__()
        self.needed_bytes = needed_bytes
        self._prompt, self._choices = list(prompt), [list(choice) for choice in choices]
        self._reuse_prefix = reuse_prefix
        self.log_probs: NDArray[np.float64] = np.zeros(len(choices), np.float64)
        """[choices]: natural log-probability of each choice given the prompt, once it has ended."""
        self._prompt_logits = 0  # rows of logits of the prompt in the run at hand
        # The last token of a choice is scored by those before it, and never run.
        self._waiting = deque(i for i, choice in enumerate(self._choices) if len(choice) > 1)
        self._branches: list[_Branch] = []

    def begin(self, decoder: Decoder, rows: Rows) -> None:
        self._decoder, self._rows = decoder, rows
        rows.reserve(len(self._prompt) + max(map(len, self._choices)) - 1)
        self.rows = [rows.begin(self._prompt[:-1], reuse=self._reuse_prefix)]

    def plan(self, budget: Budget) -> Sequence[Piece]:
        if len(self.rows[0].tokens) < len(self._prompt):
            return self._plan_prompt(budget)
        pieces: list[Piece] = []
        for branch in self._branches:
            pieces += self._plan_branch(branch, budget)
        while self._waiting and len(self._branches) < MAX_BRANCHES and min(budget.tokens, budget.logits) > 0:
            [row] = self._rows.fork(self.rows[0], 1)
            self.rows.append(row)
            self._branches.append(_Branch(self._waiting.popleft(), row))
            pieces += self._plan_branch(self._branches[-1], budget)
        return pieces

    def _plan_prompt(self, budget: Budget) -> Sequence[Piece]:
        row = self.rows[0]
        done = len(row.tokens)
        count = self._room(row, len(self._prompt) - done, budget.tokens)
        self._prompt_logits = int(done + count == len(self._prompt))
        if self._prompt_logits > budget.logits:
            count, self._prompt_logits = count - 1, 0
        if count <= 0:
            return ()
        budget.tokens -= count
        budget.logits -= self._prompt_logits
        return [Piece(row, self._prompt[done : done + count], self._prompt_logits)]

    def _plan_branch(self, branch: _Branch, budget: Budget) -> Sequence[Piece]:
        tokens = self._choices[branch.choice][branch.done : -1]
        branch.ran = max(self._room(branch.row, len(tokens), min(budget.tokens, budget.logits)), 0)
        if not branch.ran:
            return ()
        budget.tokens -= branch.ran
        budget.logits -= branch.ran
        return [Piece(branch.row, tokens[: branch.ran], branch.ran)]

    def _room(self, row: Row, wanted: int, allowed: int) -> int:
        return min(wanted, allowed, self._decoder.kv_cache.max_append(row.index))

    def advance(self, first: int, hidden: NDArray[np.float32] | None) -> None:
        if not self._branches and self._prompt_logits:
            [logits] = self._decoder.runner.logits(first, 1)
            for index, choice in enumerate(self._choices):
                self._add(index, logits, choice[0])
        for branch in list(self._branches):
            for logits in self._decoder.runner.logits(first, branch.ran) if branch.ran else ():
                branch.done += 1
                self._add(branch.choice, logits, self._choices[branch.choice][branch.done])
            first += branch.ran
            if branch.done == len(self._choices[branch.choice]) - 1:
                self._branches.remove(branch)
                self.rows.remove(branch.row)
                self._rows.end([branch.row], keep=False)
        scored = len(self.rows[0].tokens) == len(self._prompt)
        if scored and not self._branches and not self._waiting:
            self.end(self._rows, keep=True)

    def _add(self, choice: int, logits: NDArray[np.float32], token: int) -> None:
        try:
            self.log_probs[choice] += log_prob(logits, token)
        except ValueError as error:  # the core found NaN
            raise nan_error("the text") from error

    def cancel(self) -> None:
        self.error = SabiYarnError(
            "the call was cancelled: there is no probability of what was not computed."
        )
        self.abandoned = True
