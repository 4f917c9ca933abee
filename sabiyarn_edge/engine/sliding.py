"""SlidingRunner: lets rows go on when their positions end, by running what they keep again from position 0."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..options.overflow import SlidingContext

if TYPE_CHECKING:
    from .._core import DecodeState
    from ._decode import GraphRunner, LookupRunner
    from .masked_runner import MaskedRunner

__all__ = ["RerunInterrupted", "SlidingRunner"]


class RerunInterrupted(Exception):
    """The run was cancelled, or its time was over, while kept tokens were run again."""


class SlidingRunner:
    """A backend for DecodeLoop in front of another one.

    The rows slide one by one, each when its own positions end; beams share nothing any more from then on.

    Args:
        backend: runs the steps.
        rerun: called as rerun(row, tokens, kept, state) to run what a row keeps, `tokens`, anew from position 0; `kept`
            are their places in the text. Says whether all were run, which is asked of `state` unless it is None.
        context: says when a row slides and what it keeps.
        interruptible: whether a rerun ends with RerunInterrupted when the state is cancelled or out of time; the
            rows then cannot go on.
    """

    def __init__(
        self,
        backend: GraphRunner | LookupRunner | MaskedRunner,
        rerun: Callable[[int, list[int], list[int], DecodeState | None], bool],
        context: SlidingContext,
        *,
        interruptible: bool,
    ) -> None:
        self._backend, self._rerun_row, self._context = backend, rerun, context
        self._interruptible = interruptible
        self._steps_left = 1  # look at the rows at the first step
        self.reruns = 0
        """How often a row's kept tokens were run again."""
        self.rerun_tokens = 0
        """Tokens of these runs."""
        self.rerun_seconds = 0.0
        """Time for them."""

    @property
    def logits_address(self) -> int:
        """Where the logits of the state's rows lie."""
        return self._backend.logits_address

    def compute(self, state: DecodeState) -> None:
        """Have the logits of the state's next tokens; rows whose positions have ended slide before."""
        self._steps_left -= 1
        if self._steps_left > 0:
            self._backend.compute(state)
            return
        self._backend.arrange(state)
        lengths = (state.next_positions + 1).tolist()
        for row, length in enumerate(lengths):
            if self._context.slides_at(length):
                self._rerun(row, state)
        self._backend.run_next(state)
        self._steps_left = min(map(self._context.until_slide, lengths))

    def _rerun(self, row: int, state: DecodeState) -> None:
        started = time.perf_counter()
        text = state.history_of(row)
        # The newest token is run with the other rows'.
        tokens, kept = self._context.of(text)[:-1], self._context.of(range(len(text)))[:-1]
        complete = self._rerun_row(row, tokens, kept, state if self._interruptible else None)
        self.reruns += 1
        self.rerun_tokens += len(kept)
        self.rerun_seconds += time.perf_counter() - started
        if not complete:
            raise RerunInterrupted
