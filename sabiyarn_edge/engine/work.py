"""Work: what the scheduler runs for a caller, one piece per step: a generation, a score, an embedding."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..system.own_process import OwnProcess
from .rows import Row, Rows

if TYPE_CHECKING:
    from ._decode import SteadyText
    from .decoder import Decoder

__all__ = ["SIGNAL_SECONDS", "Budget", "Piece", "Work"]

SIGNAL_SECONDS = 0.1
"""A signal that the system gives to another thread does not wake the main thread up, so it looks as often as that."""


@dataclass(slots=True)
class Budget:
    """How much a step may still take for works that are not due for their next token."""

    tokens: int
    """Prompt tokens. Below 0 if a mask tied more tokens together than the step had."""
    logits: int
    """Rows of logits, for works that want those of many tokens at once."""
    _at_first: int = field(init=False)

    def __post_init__(self) -> None:
        self._at_first = self.tokens

    @property
    def untouched(self) -> bool:
        """Whether all its prompt tokens are still left."""
        return self.tokens == self._at_first


@dataclass(slots=True)
class Piece:
    """Tokens to append to one row in a run."""

    row: Row
    tokens: list[int]
    num_logits: int
    """The logits of the last so many tokens are wanted."""
    mask: Callable[[NDArray[np.float32]], None] | None = None
    """Writes what the tokens see, float32 [tokens, length afterwards]; None: causal."""


class Work(ABC):
    """One caller's work. The scheduler alone calls plan() and advance(); the caller waits, and may cancel.

    Attributes:
        group: the call that it belongs to: works of one call do not mind waiting for one another.
        turn: set by the scheduler: while works wait, those of lower turns are admitted first.
        needed_bytes: memory that it takes beside what is shared, at most.
        num_rows: rows of the KV cache that it takes, at most.
        positions: most tokens that a row of it holds, if it goes on from what is known of its text; else 0.
        wants_hidden: whether advance() is given hidden states.
        steady: set while it does nothing but run the next token of each of its rows: then neither plan() nor advance()
            are called. Else None.
        done: whether it has ended, by a result, an error or because it was abandoned.
        error: what ended it, or None.
        on_end: called when it has ended, from the engine's thread; or None.
        process: the one whose engine runs it; None before it is submitted.
    """

    group: object = None
    turn: int = 0
    needed_bytes: int = 0
    num_rows: int = 1
    positions: int = 0
    wants_hidden: bool = False

    def __init__(self) -> None:
        self.done = False
        self.error: BaseException | None = None
        self.abandoned = False
        self.rows: list[Row] = []
        self.steady: SteadyText | None = None
        self.on_end: Callable[[], None] | None = None
        self.process: OwnProcess | None = None
        self._running = threading.Lock()  # held until it has ended; an Event takes 30 times as long to make
        self._running.acquire()

    @property
    @abstractmethod
    def due(self) -> bool:
        """Whether each of its rows has one token to run. It then takes nothing from the budget."""

    def proceed(self) -> None:
        """Called after steps of its `steady` text, once it needs something else than the next one."""
        raise NotImplementedError

    @abstractmethod
    def begin(self, decoder: Decoder, rows: Rows) -> None:
        """Called once, when the work is admitted."""

    @abstractmethod
    def plan(self, budget: Budget) -> Sequence[Piece]:
        """Return what to run for it in the next step, and take that from the budget. Return nothing where it waits for
        another work, or has just finished."""

    @abstractmethod
    def advance(self, first: int, hidden: NDArray[np.float32] | None) -> None:
        """Called after each run that had pieces of it.

        Args:
            first: place of its first logits among the run's.
            hidden: hidden states float32 [logits, n_embd] of the whole run, or None.
        """

    def cancel(self) -> None:  # noqa: B027 - to be overridden where there is something to give
        """End it at the next step with what it has; from any thread. Without a partial result it runs to its end."""

    def ends_early(self, rows: Rows) -> bool:
        """Called before each step while it waits to be admitted: end it if nobody waits for it any more.

        Returns:
            Whether it has ended.
        """
        if self.abandoned:
            self.end(rows, keep=False)
        return self.done

    def end(self, rows: Rows, *, keep: bool) -> None:
        """Give its rows back and wake the caller up, once."""
        if self.done:
            return
        rows.end(self.rows, keep=keep and self.error is None)
        self.rows, self.steady = [], None
        self.done = True
        if self.on_end is not None:
            self.on_end()
        self._running.release()

    def fail(self, rows: Rows, error: BaseException) -> None:
        """End it with an error, which nobody reads of an abandoned one."""
        if not self.abandoned:
            self.error = error
        self.end(rows, keep=False)

    def abandon(self) -> None:
        """Say that nobody waits for it any more, nor for its error."""
        self.abandoned, self.error = True, None

    def raise_error(self) -> None:
        """Raise what ended it, if an error did, and forget it.

        The error knows the frames that it went through, and some of them know the work: together they would stay until
        a garbage collection, and with them the caller's generator.
        """
        if self.error is not None:
            error, self.error = self.error, None
            try:
                raise error
            finally:
                del error

    @property
    def is_foreign(self) -> bool:
        """Whether this process was forked from the one that runs it, and is told nothing of its progress."""
        return self.process is not None and not self.process.is_this

    def check_process(self) -> None:
        """Raise InvalidInputError if it is foreign, whether it had ended or not: which of the two is chance."""
        if self.process is not None:
            self.process.check()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it has ended; False if that took longer than `timeout` seconds.

        Ctrl-C is noticed meanwhile.

        Raises:
            InvalidInputError: another process runs it.
        """
        self.check_process()
        if timeout is None:
            while not self.wait(SIGNAL_SECONDS):
                pass
            return True
        ended = self._running.acquire(timeout=timeout)
        if ended:
            self._running.release()  # others may wait, too
        return ended
