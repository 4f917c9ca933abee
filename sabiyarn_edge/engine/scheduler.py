"""Scheduler: composes each run of the graph from the works of many callers (continuous batching).

A step runs one token of every row that is due for it, and prompt tokens up to a budget. Works join and leave between
steps. They are admitted as memory allows: those of one call first come, first served, and of several calls in turn.
"""

from __future__ import annotations

import sys
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ModelFolderError, OutOfMemoryError
from ..planning.memory_plan import LOGITS_BYTES, MIB
from ..system.memory_errors import ran_out_of_memory
from ..system.process_memory import return_free_memory
from .decoder import Decoder
from .generation import Generation
from .prefill_pace import PrefillPace
from .rows import Rows
from .work import Budget, Piece, Work

if TYPE_CHECKING:
    from ._decode import SteadyText

__all__ = ["Scheduler"]

_MUCH_SCRATCH_TOKENS = 32
"""Runs of more tokens than that give their scratch memory back, if no such run follows."""

_turn = attrgetter("turn")


class Scheduler:
    """Runs works step by step; for one thread.

    Args:
        decoder: the model.
        rows: of its KV cache.
        limit_bytes: most that the works at hand may need together; None: no limit.
        max_rows: most rows that they may have together; None: no limit.
        reserved: bytes of the limit that are taken for other things, by what they serve; may grow.
    """

    def __init__(
        self,
        decoder: Decoder,
        rows: Rows,
        limit_bytes: int | None = None,
        max_rows: int | None = None,
        reserved: Mapping[str, int] | None = None,
    ) -> None:
        self._decoder, self._rows = decoder, rows
        self._decoder.runner.common_guesses = decoder.costs.common_guesses
        self._limit_bytes, self._max_rows = limit_bytes, max_rows
        self._pace = PrefillPace()
        self._seen_resets = 0
        self.called = False
        """Whether something waits for step() to return; set from other threads."""
        self._reserved = reserved if reserved is not None else {}
        self._most_tokens = 0  # of a run since scratch memory was given back
        self.waiting: deque[Work] = deque()
        """In the order in which they are admitted. The first one waits for room, and nothing behind it takes that."""
        self._turns: dict[object, int] = {}  # of each group the last one given, if it is to come
        self.live: list[Work] = []

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.waiting or self.live)

    def add(self, works: Sequence[Work]) -> None:
        """Queue works: behind those of their group, and in turn with those of other groups.

        A new group's first turn is behind the next one of each group that waits already, so that none waits for ever.
        """
        now = self.waiting[0].turn if self.waiting else 0
        self._turns = {group: turn for group, turn in self._turns.items() if self.waiting and turn > now}
        for work in works:
            work.turn = self._turns[work.group] = self._turns.get(work.group, now) + 1
            if self.waiting and work.turn < self.waiting[-1].turn:
                insort(self.waiting, work, key=_turn)
            else:  # of many works of one call, without a search for each
                self.waiting.append(work)

    def step(self) -> None:
        """Admit what fits, and run the graph once; more often, while each row just runs its next token."""
        self._fail_those_without_rows()
        if self.waiting:
            self._admit()
        self._drop_abandoned()
        self._rows.release_free()
        texts = [work.steady for work in self.live if work.steady is not None]
        planned: list[tuple[Work, Sequence[Piece]]] = []
        gives_back = True
        if len(texts) < len(self.live):
            planned, budget = self._plan()
            # Below 0: a mask ties more tokens together than a run should have.
            gives_back = budget.tokens != 0
        if planned or (texts and self._most_tokens > _MUCH_SCRATCH_TOKENS):
            self._run(texts, planned, gives_back=gives_back)
        elif texts:
            self._run_steadily(texts)
        self.live = [work for work in self.live if not work.done]

    def _run_steadily(self, texts: list[SteadyText]) -> None:
        # Before each of the next runs others may be admitted, or have to run.
        steps = 1 if self.waiting or len(texts) < len(self.live) else sys.maxsize
        found: list[SteadyText] = []
        runner = self._decoder.runner
        if self._attempt(
            [text.work for text in texts], lambda: found.extend(runner.decode(texts, self, steps))
        ):
            self._proceed(found)

    def _proceed(self, texts: Sequence[SteadyText]) -> None:
        for text in texts:
            work: Work = text.work
            if work.done:
                continue
            if text.error is not None:
                self._fail([work], text.error)
                continue
            try:
                work.proceed()
            except Exception as error:
                self._fail([work], error)

    def _admit(self) -> None:
        self.waiting = deque(work for work in self.waiting if not work.ends_early(self._rows))
        while self.waiting:
            work = self.waiting[0]
            if not (self._has_rows(work) and self._fits(work)):
                return
            self.waiting.popleft()
            self.live.append(work)
            try:
                if isinstance(work, Generation):
                    work.follow(self.live[:-1])
                work.begin(self._decoder, self._rows)
            except Exception as error:
                self._fail([work], error)

    def _has_rows(self, work: Work) -> bool:
        if self._max_rows is None or not self.live:
            return True
        return sum(other.num_rows for other in self.live) + work.num_rows <= self._max_rows

    def _fits(self, work: Work) -> bool:
        """Whether a work can begin beside the others; what is kept only for later then makes room for it.

        Guesses that nobody asked for take what is left, or are not made.
        """
        if self._limit_bytes is None:
            return True
        self._rows.release_free()
        now = self._room(self._limit_bytes)
        later = now - work.needed_bytes
        if self.live and later < 0:
            return False
        costs = self._decoder.costs
        guesses = costs.common_guesses if later >= costs.guessing else 0
        self._decoder.runner.common_guesses = guesses
        if guesses:
            later -= costs.guessing
        self._rows.make_room(now, later, work.positions)
        if self._decoder.kept_bytes > later:
            self._decoder.free_buffers()
        return True

    def _room(self, limit_bytes: int) -> int:
        """What the live works leave of the limit."""
        taken = sum(work.needed_bytes for work in self.live) + sum(self._reserved.values())
        return limit_bytes - taken - self._rows.surplus_bytes

    def _drop_abandoned(self) -> None:
        for work in self.live:
            if work.abandoned and not work.done:
                work.end(self._rows, keep=True)  # a closed stream's text may go on
        self.live = [work for work in self.live if not work.done]

    def _plan(self) -> tuple[list[tuple[Work, Sequence[Piece]]], Budget]:
        """What the works run that are not steady."""
        # Short steps let those go on who are decoding, and the first of several begin.
        several = len({work.group for work in self.live}) > 1
        chunk = self._decoder.max_prefill_chunk
        budget = Budget(
            tokens=min(chunk, self._pace.tokens) if several else chunk,
            logits=max(LOGITS_BYTES // (4 * self._decoder.config.gptjx.vocab_size), 1),
        )
        planned = []
        for work in self.live:
            if work.done or work.steady is not None:
                continue
            try:
                pieces = work.plan(budget)
            except Exception as error:
                self._fail([work], error)
                continue
            if pieces:
                planned.append((work, pieces))
        return [(work, pieces) for work, pieces in planned if not work.done], budget

    def _run(
        self, texts: list[SteadyText], planned: list[tuple[Work, Sequence[Piece]]], *, gives_back: bool
    ) -> None:
        runner = self._decoder.runner
        pieces = [piece for _, works_pieces in planned for piece in works_pieces]
        first = runner.prepare(texts, len(pieces))  # place of the first logits that are not a steady text's
        hidden = None
        if any(work.wants_hidden for work, _ in planned):
            num_logits = first + sum(piece.num_logits for piece in pieces)
            hidden = np.empty((num_logits, self._decoder.config.gptjx.n_embd), np.float32)
        tokens = sum(len(piece.tokens) for piece in pieces)
        self._most_tokens = max(self._most_tokens, tokens)
        shrinks = gives_back and self._most_tokens > _MUCH_SCRATCH_TOKENS
        items = [(piece.row.index, piece.tokens, piece.num_logits, piece.mask) for piece in pieces]
        options = self._decoder.shrinking_options if shrinks else None
        works = [*(text.work for text in texts), *(work for work, _ in planned)]
        started = time.perf_counter()
        if not self._attempt(works, lambda: runner.run(items, hidden, options, texts)):
            return
        self._pace.record(tokens, len(texts), time.perf_counter() - started)
        if shrinks:
            self._most_tokens = 0
            return_free_memory()
        for piece in pieces:
            piece.row.tokens += piece.tokens
        found = runner.choose(texts)
        for work, works_pieces in planned:
            try:
                if not work.done:
                    work.advance(first, hidden)
            except Exception as error:
                self._fail([work], error)
            first += sum(piece.num_logits for piece in works_pieces)
        self._proceed(found)

    def _attempt(self, works: Sequence[Work], run: Callable[[], None]) -> bool:
        """Run the graph; False if that failed. Then the works have ended: their rows hold tokens without keys."""
        try:
            run()
            return True
        except Exception as error:
            self._fail(works, self._explained(error))
            return False

    def _explained(self, error: Exception) -> Exception:
        if not isinstance(error, RuntimeError) or ran_out_of_memory(error):
            return error
        # onnxruntime's: an operator refuses the graph's attributes or weights
        graph = self._decoder.folder / self._decoder.config.graph
        explained = ModelFolderError(
            f"onnxruntime cannot run {graph}: {error}. Copy the whole model folder again."
        )
        explained.__cause__ = error
        return explained

    def _fail(self, works: Sequence[Work], error: Exception) -> None:
        """End works by an error, and with them those that it took the rows from."""
        told = self._out_of_memory(works, error) if ran_out_of_memory(error) else error
        if self._decoder.kv_cache.num_rows == 0:  # there was no memory for a larger KV cache: it was emptied
            self._rows.reset()
        for work in works:
            work.fail(self._rows, told)
        self._fail_those_without_rows()

    def _fail_those_without_rows(self) -> None:
        if self._rows.num_resets == self._seen_resets:
            return
        self._seen_resets = self._rows.num_resets
        for work in self.live:
            if not work.done and not all(map(self._rows.has, work.rows)):
                work.fail(self._rows, self._out_of_memory([work], MemoryError()))

    def _out_of_memory(self, works: Sequence[Work], error: Exception) -> OutOfMemoryError:
        costs = self._decoder.costs
        needed = sum(
            work.needed_bytes
            or costs.kv_bytes(work.positions, work.positions, work.num_rows) + costs.logits(work.num_rows)
            for work in works
        )
        others = len(self.live) - len(works)
        beside = f", beside {others} others that are being run" if others > 0 else ""
        found = OutOfMemoryError(
            f"there is no memory for {len(works)} prompts, whose keys, values and logits take up to "
            f"{needed / MIB:.1f} MiB{beside}. Give fewer or shorter prompts at once, load with a smaller max_length or "
            "kv_window, or end other programs."
        )
        found.__cause__ = error
        return found
