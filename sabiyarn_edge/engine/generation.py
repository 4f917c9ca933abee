"""Generation: the rows of one prompt, from its first token to its last."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._core import DecodeOptions, DecodeState, Guesser
from ..errors import InvalidInputError
from ..options.overflow import SlidingContext
from ._decode import DecodeLoop, SteadyText
from .prefix_cache import common_prefix
from .prompt_mask import PromptMask
from .rows import MIN_SHARED_TOKENS, Row, Rows
from .work import Budget, Piece, Work

if TYPE_CHECKING:
    from .decoder import Decoder

__all__ = ["Generation", "GenerationRequest", "GenerationTimes", "Lookup"]


@dataclass(frozen=True)
class Lookup:
    """Prompt lookup decoding: guesses copied from the text so far are verified in one run."""

    max_guesses: int
    max_ngram: int
    shares_room: bool = False
    """True: all such texts in a run share CallCosts.common_guesses. False: the call's own memory has room for its
    guesses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """One prompt and everything that was decided about it."""

    prompt: list[int]
    """Its token ids, at least one."""
    options: DecodeOptions
    vocab_size: int
    context: SlidingContext
    """Which tokens of the text the model sees when its positions end."""
    slides: bool
    """True if the text slides at the last position. If not, `options` end it before."""
    positions: int
    """Most tokens that a row will hold."""
    num_beams: int = 1
    num_rows: int = 1
    """Rows of the KV cache: beams, or returned sequences."""
    mask: PromptMask | None = None
    lookup: Lookup | None = None
    reuse_prefix: bool = True
    hooks: Callable[[], dict[str, Any]] = dict
    """Makes what DecodeLoop takes besides: the caller's functions, and what holds the rows to a constraint."""
    needed_bytes: int = 0


@dataclass(slots=True)
class GenerationTimes:
    """Where the time went: `time.perf_counter()` or counts."""

    prefill_started: float = 0.0
    first_logits: float = 0.0
    first_token: float = 0.0
    ended: float = 0.0
    reused_tokens: int = 0
    reruns: int = 0
    rerun_tokens: int = 0
    rerun_seconds: float = 0.0
    guesses: int = 0


class Generation(Work):
    """Drives one DecodeState.

    Args:
        request: what to generate.
        listener: called with [(token, finish reason), ...] for tokens that will never change, as they come; only with
            one returned sequence. It must not block.

    Raises:
        InvalidInputError: an option holds an id outside the vocabulary.
    """

    def __init__(
        self,
        request: GenerationRequest,
        listener: Callable[[list[tuple[int, str]]], None] | None = None,
    ) -> None:
        super().__init__()
        self.request = request
        self.needed_bytes, self.num_rows = request.needed_bytes, request.num_rows
        self.positions = request.positions
        try:
            self.state = DecodeState(request.options, request.vocab_size, [request.prompt])
        except ValueError as error:  # an id outside the vocabulary: the core names the option
            raise InvalidInputError(f"{error}.") from error
        self.times = GenerationTimes()
        self.interrupted = False
        """True if it was cancelled, or out of time, before its prompt was computed."""
        self.context = request.context.of(request.prompt)
        """The tokens of the prompt that the model sees."""
        self.held: list[int] = []
        """When it has ended: the tokens that its first row held."""
        self._listener = listener
        self._told = 0
        self._loop: DecodeLoop | None = DecodeLoop(self.state, **request.hooks())
        self._pending: list[list[int]] = []  # of each row: tokens to run before its next logits
        self._masks: list[PromptMask] = []  # of each row; empty without masks
        self._ran: list[int] = []  # of each row: tokens of the run that was planned
        lookup = request.lookup
        self._guesser = Guesser(lookup.max_guesses, lookup.max_ngram) if lookup is not None else None
        self._rerun_started = 0.0
        self._leader: Generation | None = None
        self._shared_head = 0

    # --- called by the scheduler

    def ends_early(self, rows: Rows) -> bool:
        if not self.abandoned and self.state.interruption():  # cancelled, or out of time
            self.interrupted = True
            self.times.ended = time.perf_counter()
            self.end(rows, keep=False)
        return super().ends_early(rows)

    def begin(self, decoder: Decoder, rows: Rows) -> None:
        self._decoder, self._rows = decoder, rows
        rows.reserve(self.request.positions)
        self.times.prefill_started = time.perf_counter()
        if self.request.mask is not None:
            self._begin_masked(self.request.mask)
        elif self._leader is None:
            self._begin_alone()

    def follow(self, others: Sequence[Work]) -> None:
        """Wait for another prompt that is about to be computed and begins alike, so that this is done once."""
        if self.request.mask is not None or not self.request.reuse_prefix:
            return
        best, own = MIN_SHARED_TOKENS - 1, self.context[:-1]
        for other in others:
            if not isinstance(other, Generation) or other.steady is not None:
                continue  # all of a steady text is there: begin() finds it
            if other.request.mask is not None or other.done or len(other.context) <= MIN_SHARED_TOKENS:
                continue
            if other.rows and other._computed >= len(other.context):
                continue
            shared = min(common_prefix(other.context, own), len(other.context) - 1)
            if shared > best and shared > other._computed:
                self._leader, self._shared_head, best = other, shared, shared

    @property
    def _computed(self) -> int:
        return len(self.rows[0].tokens) if self.rows else 0

    def plan(self, budget: Budget) -> Sequence[Piece]:
        if self._leader is not None and not self._leave_leader():
            return ()
        if not self._prefilled() and self._interrupt():
            return ()
        return self._plan_pending(budget)

    @property
    def due(self) -> bool:
        """True while every row has exactly one token to run."""
        return bool(self._pending) and all(len(tokens) == 1 for tokens in self._pending)

    def advance(self, first: int, hidden: NDArray[np.float32] | None) -> None:
        for pending, count in zip(self._pending, self._ran, strict=True):
            del pending[:count]
        if self._rerun_started and all(len(tokens) <= 1 for tokens in self._pending):
            self.times.rerun_seconds += time.perf_counter() - self._rerun_started
            self._rerun_started = 0.0
        if any(self._pending):
            return
        if not self.times.first_logits:
            self.times.first_logits = time.perf_counter()
        loop = self._loop
        assert loop is not None
        loop.select(self._decoder.runner.logits_address + first * 4 * self.request.vocab_size)
        if not self.times.first_token:
            self.times.first_token = time.perf_counter()
        self._tell()
        self.proceed()

    def proceed(self) -> None:
        if self.state.finished:
            self._finish()
            return
        self._prepare_next()
        self.steady = self._steady_text()

    def cancel(self) -> None:
        self.state.cancel()

    def end(self, rows: Rows, *, keep: bool) -> None:
        self._loop = None
        if self.rows:
            self.held = list(self.rows[0].tokens)
        if self._guesser is not None:
            self.times.guesses = self._guesser.num_run
        super().end(rows, keep=keep)

    # --- the beginning

    def _begin_alone(self) -> None:
        row = self._rows.begin(self.context[:-1], reuse=self.request.reuse_prefix)
        self.times.reused_tokens = len(row.tokens)
        self.rows = [row]
        self._pending = [self.context[len(row.tokens) :]]

    def _begin_masked(self, mask: PromptMask) -> None:
        if len(self.context) < mask.length:
            mask = mask.of_kept(self.request.context.of(range(mask.length)))
        row = self._rows.take()
        row.reusable = False
        self.rows, self._pending, self._masks = [row], [list(self.context)], [mask]

    def _leave_leader(self) -> bool:
        """Begin, once the leader has computed what both share, or is gone."""
        leader = self._leader
        assert leader is not None
        if not leader.done and leader._computed < self._shared_head and leader._leader is not self:
            return False
        self._leader = None
        self._begin_alone()
        return True

    def _prefilled(self) -> bool:
        return self.times.first_logits > 0 and not self._rerun_started

    def _interrupt(self) -> bool:
        """End a prompt or a rerun that was cancelled or is out of time.

        A beam search finishes its rerun: it would have no best beam yet.
        """
        if not self.state.interruption() or (self.times.first_logits and self.request.num_beams > 1):
            return False
        self.interrupted = not self.times.first_logits
        self._finish()
        return True

    # --- one run

    def _piece(self, place: int, count: int, num_logits: int) -> Piece:
        """The next `count` tokens of a row."""
        self._ran[place] = count
        mask = self._mask_writer(self._masks[place]) if self._masks else None
        return Piece(self.rows[place], self._pending[place][:count], num_logits, mask)

    def _plan_pending(self, budget: Budget) -> Sequence[Piece]:
        """As many of the pending tokens as the budget allows; the rows' last ones, and their logits, all in one run."""
        self._ran = [0] * len(self._pending)
        counts = [1] * len(self._pending)
        if not self.due:
            # Rows with only their last token left come last: they may have to wait, and must not use up the budget.
            for place in sorted(range(len(counts)), key=lambda place: len(self._pending[place]) == 1):
                counts[place] = self._next_run(place, budget)
        complete = all(count == len(tokens) for count, tokens in zip(counts, self._pending, strict=True))
        pieces = []
        for place, count in enumerate(counts):
            if count == len(self._pending[place]) and not complete:
                count -= 1  # its last token waits for the other rows
            if count > 0:
                pieces.append(self._piece(place, count, int(complete)))
        return pieces

    def _next_run(self, place: int, budget: Budget) -> int:
        """How many of a row's pending tokens the next run takes."""
        row, pending = self.rows[place], len(self._pending[place])
        done = len(row.tokens)
        if self._masks and done < self._masks[place].length:
            count = self._masks[place].next_run(done, max(budget.tokens, 1))
            if count > budget.tokens and not budget.untouched:
                return 0  # tokens that a mask ties together run together, however many they are
        else:
            count = max(min(pending, budget.tokens, self._decoder.kv_cache.max_append(row.index)), 0)
        budget.tokens -= count
        return count

    def _mask_writer(self, mask: PromptMask) -> Callable[[NDArray[np.float32]], None]:
        causal = self._decoder.causal_masks
        return lambda out: mask.write(out, causal)

    # --- between runs

    def _prepare_next(self) -> None:
        """Bring the rows into the state's order and say what each runs next."""
        self._arrange(self.state.row_sources.tolist())
        self._pending = [[token] for token in self.state.next_tokens.tolist()]
        if not self.request.slides:
            return
        for place in range(len(self.rows)):
            if self.request.context.slides_at(self._text_length(place)):
                self._slide(place)

    def _text_length(self, place: int) -> int:
        return int(self.state.next_positions[place]) + 1

    def _arrange(self, sources: list[int]) -> None:
        """Row i continues row sources[i]. The first to continue a row takes it over; others copy it."""
        if sources == list(range(len(self.rows))):
            return
        old = self.rows
        new: list[Row | None] = [None] * len(sources)
        for place, source in enumerate(sources):
            if old[source] not in new:
                new[place] = old[source]
        spare = [row for row in old if row not in new]
        missing = [place for place, row in enumerate(new) if row is None]
        if len(spare) < len(missing) and len(old) == 1:  # the prompt splits: the rows share its memory
            forks = self._rows.fork(old[0], len(missing))
            for place, row in zip(missing, forks, strict=True):
                new[place] = row
        else:
            for place in missing:
                row = spare.pop() if spare else self._rows.take()
                self._rows.copy(old[sources[place]], row)
                new[place] = row
        self._rows.end(spare, keep=False)
        self.rows = [row for row in new if row is not None]
        if self._masks:
            self._masks = [self._masks[source] for source in sources]

    def _steady_text(self) -> SteadyText | None:
        if self._rerun_started or not self.due:
            return None
        steps = sys.maxsize
        if self.request.slides:
            until_slide = self.request.context.until_slide
            steps = min(until_slide(self._text_length(place)) for place in range(len(self.rows)))
        assert self._loop is not None
        tell = self._tell if self._listener is not None else None
        return SteadyText(
            self,
            self._loop,
            self.rows,
            masks=[self._mask_writer(mask) for mask in self._masks] or None,
            tell=tell,
            num_steps=steps,
            guesser=self._guesser,
            shares_room=self.request.lookup is not None and self.request.lookup.shares_room,
            positions=self.request.positions,
        )

    def _slide(self, place: int) -> None:
        """A row's positions have ended: it forgets them and runs what it keeps of its text again."""
        row, text = self.rows[place], self.state.history_of(place)
        self._rows.restart(row)
        self._pending[place] = self.request.context.of(text)
        self.times.reruns += 1
        self.times.rerun_tokens += len(self._pending[place]) - 1
        if not self._rerun_started:
            self._rerun_started = time.perf_counter()
        if self.request.mask is not None:
            kept = self.request.context.of(range(len(text)))[:-1]  # the newest runs with the other rows'
            self._masks[place] = self.request.mask.of_kept(kept)

    def _tell(self) -> None:
        """Hand tokens that will never change to the listener. With beams that is what all of them share."""
        if self._listener is None:
            return
        if self.request.num_beams == 1:
            told = [(token, reason) for _, token, reason in self.state.last_tokens()]
        else:
            tokens = self.state.certain_tokens(0)
            if self.state.finished and tokens:  # none: all sequences scored below -1e9
                told = [(token, "") for token in tokens[self._told : -1]]
                told.append((tokens[-1], self.state.finish_reasons()[0]))
            else:  # keep one back, to tell the reason with the last one
                told = [(token, "") for token in tokens[self._told : -1]]
            self._told += len(told)
        if told:
            self._listener(told)

    def _finish(self) -> None:
        self.times.ended = time.perf_counter()
        self.end(self._rows, keep=True)
