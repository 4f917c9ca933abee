"""Rows: the KV cache's rows, and the one place that knows which tokens each of them holds.

The rule: a row holds the keys and values of `Row.tokens`, from position 0 on. When a text ends, its row stays as the
idle row, until another text takes it over or ends. Then the prefix cache gets what is wanted of it, and its memory goes
back to the system.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np

from .._core import KvCache
from .prefix_cache import PrefixCache, common_prefix, count_tokens

__all__ = ["MIN_SHARED_TOKENS", "Row", "Rows"]

MIN_SHARED_TOKENS = 16
"""Copying fewer tokens from another row saves less than it costs."""

_WHOLE_PAGES = mmap.PAGESIZE // 64
"""Tokens: of so many the keys and values of a head, 64 bytes or more each, are whole pages."""


class Row:
    """One row of the KV cache.

    Attributes:
        index: in the KV cache.
        tokens: ids that were run since the row was last empty. Behind a window the oldest are evicted.
        reusable: whether another text may begin with them; not under a mask, on which keys and values depend.
        surplus: tokens of an earlier text that were cut off, but whose memory the row still has.
    """

    __slots__ = ("_most", "index", "reusable", "surplus", "tokens")

    def __init__(self, index: int) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.reusable = True
        self.surplus = 0
        self._most = 0

    @property
    def touched(self) -> int:
        """Tokens that the row has memory for: the most that it held."""
        return max(self._most, len(self.tokens))

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self._most = self.touched
        del self.tokens[length:]


class Rows:
    """Hands out rows that hold as much of a text's beginning as is known.

    Args:
        kv_cache: whose rows they are; it is used by nobody else.
        prefix_cache: keeps what leaves the rows and gives it back.
    """

    def __init__(self, kv_cache: KvCache, prefix_cache: PrefixCache) -> None:
        self.kv_cache, self.prefix_cache = kv_cache, prefix_cache
        self.idle: Row | None = None
        """The row of the text that ended last."""
        self._live: list[Row] = []
        self._free: list[int] = []
        self._warm: dict[int, int] = {}  # of free rows that still have memory: for so many tokens
        self._room: tuple[int, int] | None = None
        self.num_resets = 0
        """How often all rows were lost."""

    @property
    def live(self) -> Sequence[Row]:
        """Rows in use."""
        return self._live

    def reserve(self, positions: int) -> None:
        """Lay rows out for so many positions, so that they need not be moved while they grow."""
        self.kv_cache.reserve(min(positions, self.kv_cache.ring_size))

    def take(self) -> Row:
        """An empty row."""
        if self.kv_cache.num_rows == 0:
            self.reset()
        self.drop_idle()
        if not self._free:
            first = self.kv_cache.num_rows
            # Growing moves all rows: by a half, so that it stays rare.
            self.kv_cache.resize(first + max(first // 2, 1))
            self._free.extend(reversed(range(first, self.kv_cache.num_rows)))
        row = Row(self._free.pop())
        row.surplus = row._most = self._warm.pop(row.index, 0)
        self._live.append(row)
        return row

    def begin(self, tokens: Sequence[int], *, reuse: bool = True) -> Row:
        """A row that holds the longest known beginning of `tokens`: `Row.tokens` says how much.

        Args:
            tokens: all that may be taken over; a prompt without its last token, whose logits are wanted.
            reuse: False: an empty row.
        """
        if not reuse:
            return self.take()
        pieces = self.prefix_cache.match(tokens)
        cached = count_tokens(pieces)
        if cached > self.kv_cache.ring_size:
            pieces, cached = [], 0
        idle = 0 if self.idle is None else self._shared(self.idle, tokens)
        source, live = None, MIN_SHARED_TOKENS - 1
        for row in self._live:
            shared = common_prefix(row.tokens, tokens) if row.reusable else 0
            if shared > live and not self.evicted(row):
                source, live = row, shared
        if idle > 0 and idle >= max(cached, live if source else 0):
            assert self.idle is not None
            row, self.idle = self.idle, None
            self._live.append(row)
            if idle < len(row.tokens):
                self._retire(row)
                self.truncate(row, idle)
            row.surplus = row.touched - idle
            return row
        if source is not None and live >= cached:
            return self.fork(source, 1, live)[0]
        row = self.take()
        for piece in pieces:
            self.kv_cache.write(row.index, np.ascontiguousarray(piece))
        row.tokens = list(tokens[:cached])
        return row

    def fork(self, row: Row, count: int, length: int | None = None) -> list[Row]:
        """New rows that continue the first `length` tokens of a row (None: all); they share its memory so far."""
        length = len(row.tokens) if length is None else length
        forks = [self.take() for _ in range(count)]
        self.kv_cache.fork(row.index, [fork.index for fork in forks], length)
        for fork in forks:
            fork.tokens, fork.reusable = row.tokens[:length], row.reusable
        return forks

    def copy(self, source: Row, target: Row) -> None:
        """Have `target` continue `source`; what it held is lost, but what both have in common is not copied."""
        self.kv_cache.fork(source.index, [target.index], len(source.tokens))
        target.tokens, target.reusable = list(source.tokens), source.reusable

    def truncate(self, row: Row, length: int) -> None:
        """Forget all but the first `length` tokens of a row."""
        if length < len(row.tokens):
            self.kv_cache.truncate(row.index, length)
            row.cut(length)

    def restart(self, row: Row) -> None:
        """Forget all tokens of a row."""
        self.kv_cache.restart(row.index)
        row.cut(0)

    def evicted(self, row: Row) -> bool:
        """Whether the row has lost tokens: it can be continued then, but neither be cut nor copied in part."""
        return self.kv_cache.oldest(row.index) > self.kv_cache.num_sink_tokens

    def end(self, rows: Sequence[Row], *, keep: bool) -> None:
        """Give rows back.

        Args:
            keep: make the first one the idle row, for a text that begins alike.
        """
        rows = [row for row in rows if self.has(row)]
        for row in rows:
            self._live.remove(row)
        kept = rows[0] if keep and rows and rows[0].reusable and rows[0].tokens else None
        for row in rows:
            if row is not kept:
                self._release(row)
        if kept is not None:
            self.drop_idle()
            self.idle = kept

    def release_free(self) -> None:
        """Give the memory of rows back that no other text has taken over."""
        for index in self._warm:
            self.kv_cache.release_row(index)
        self._warm.clear()

    @property
    def surplus_bytes(self) -> int:
        """Memory that live rows have of earlier texts."""
        return sum(self._bytes(row.surplus) for row in self._live if row.surplus > 0)

    @property
    def idle_bytes(self) -> int:
        """Memory of the idle row."""
        return 0 if self.idle is None else self._bytes(self.idle.touched)

    def make_room(self, now: int, later: int, positions: int = 0) -> None:
        """Let go of texts that nobody works on, sessions' too, as far as memory is wanted for others.

        Args:
            now: most bytes that they may take at present, beside what the prefix cache may always take.
            later: the same for the time when what is about to begin has the memory that it needs.
            positions: of its rows; it takes the idle row over, or drops it.
        """
        self._room = (now, max(later, 0))
        if self.idle is not None and self.idle.touched > positions and self.idle_bytes > later:
            self.drop_idle()
        self.prefix_cache.trim(self.prefix_cache.limit_bytes + max(later, 0))

    def _bytes(self, tokens: int) -> int:
        whole = -(-tokens // _WHOLE_PAGES) * _WHOLE_PAGES
        return min(whole, self.kv_cache.capacity) * self.kv_cache.bytes_per_position

    def drop_idle(self) -> None:
        """Give the idle row's text to the prefix cache, as far as it is wanted there, and its memory back."""
        if self.idle is not None:
            row, self.idle = self.idle, None
            self._retire(row)
            self._release(row)

    def forget(self) -> None:
        """Know no text any more, neither in the idle row nor in the prefix cache."""
        if self.idle is not None:
            self._release(self.idle)
            self.idle = None
        self.prefix_cache.clear()

    def reset(self) -> None:
        """The KV cache was emptied: there are no rows. Who still has one has lost it."""
        self._live, self._free, self.idle = [], [], None
        self._warm.clear()
        self.num_resets += 1

    def has(self, row: Row) -> bool:
        """Whether a row is in use and there; where memory runs out, the KV cache is emptied."""
        return self.kv_cache.num_rows > 0 and row in self._live

    def _shared(self, row: Row, tokens: Sequence[int]) -> int:
        """How many leading tokens a row holds of `tokens` and can be cut to."""
        if not row.reusable:
            return 0
        common = common_prefix(row.tokens, tokens)
        return common if common == len(row.tokens) or not self.evicted(row) else 0

    def _retire(self, row: Row) -> None:
        """The row is about to lose its text: the prefix cache takes it if it is wanted."""
        if row.reusable and row.tokens and not self.evicted(row):
            most = None
            if self._room is not None:  # the copy is made while the row still has its memory
                now, later = self._room
                most = self.prefix_cache.limit_bytes + max(min(now - self._bytes(row.touched), later), 0)
            self.prefix_cache.add(
                row.tokens, lambda first, end: self.kv_cache.read(row.index, first, end), most
            )
        else:
            self.prefix_cache.trim()  # of what ended sessions held

    def _release(self, row: Row) -> None:
        self.kv_cache.restart(row.index)
        self._warm[row.index] = row.touched
        row.tokens, row.surplus = [], 0
        self._free.append(row.index)
