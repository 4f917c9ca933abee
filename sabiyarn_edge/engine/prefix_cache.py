"""PrefixCache: keys and values of texts that the KV cache no longer holds, so that none is computed twice.

A tree of blocks of up to 64 tokens: texts that begin alike share the blocks of their beginning, and a block is never
changed while it is shared, only made longer at its end. Keys and values depend on the tokens before them and on
nothing else, so a block is right for every text that comes to it on the same way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from ._decode import common_prefix

__all__ = ["BLOCK_TOKENS", "PrefixCache", "PrefixPin", "common_prefix", "count_tokens"]

BLOCK_TOKENS = 64
"""Most tokens of a block: 2.25 MiB of float16 keys and values for SabiYarn-125M."""

KeyValues = NDArray[Any]
"""Keys and values [n_layer, 2, n_heads, tokens, head_dim]."""


def count_tokens(pieces: Sequence[KeyValues]) -> int:
    """Tokens of keys and values that stand one behind another."""
    return sum(piece.shape[3] for piece in pieces)


class PrefixPin:
    """Pins the keys and values of `tokens`: they are kept for as long as this object lives.

    The list is replaced, not changed: another thread may be reading it.
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens = list(tokens)


class _Block:
    """Tokens that stand one after another, and what was computed for them."""

    def __init__(self, tokens: list[int], key_values: KeyValues, used: int) -> None:
        self.tokens, self.key_values, self.used = tokens, key_values, used
        self.children: list[_Block] = []


class PrefixCache:
    """Texts' keys and values by their tokens.

    Args:
        limit_bytes: most bytes of blocks without a PrefixPin; the least recently used are dropped first. 0: only
            pinned blocks are kept.
    """

    def __init__(self, limit_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self._roots: list[_Block] = []
        self._pins: WeakSet[PrefixPin] = WeakSet()
        self._pins_lock = threading.Lock()  # a thread may make a session while another one generates
        self._uses = 0  # a clock that ticks with every text

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks, pinned or not."""
        return sum(block.key_values.nbytes for block, _ in self._all())

    def pin(self, tokens: Sequence[int] = ()) -> PrefixPin:
        """A new pin; it ends with the object's life."""
        pin = PrefixPin(tokens)
        with self._pins_lock:
            self._pins.add(pin)
        return pin

    def wants(self, tokens: Sequence[int]) -> int:
        """How many leading tokens of a text are worth adding: all, or what the longest pin says."""
        if self.limit_bytes > 0:
            return len(tokens)
        return max((common_prefix(pin.tokens, tokens) for pin in self._living()), default=0)

    def add(
        self,
        tokens: Sequence[int],
        read: Callable[[int, int], KeyValues],
        most_bytes: int | None = None,
    ) -> None:
        """Keep a text's keys and values, as far as they are wanted; then drop what is too much.

        Args:
            read: gives a copy of the keys and values of tokens [first, end).
            most_bytes: that all blocks may take, pinned or not, at any time; others are dropped for this text, and of
                it is kept what fits. None: no limit.
        """
        self._uses += 1
        count = self.wants(tokens)
        siblings, first = self._roots, 0
        while first < count:
            part = list(tokens[first : min(first + BLOCK_TOKENS, count)])
            block, shared = _best(siblings, part)
            if block is not None and shared == len(block.tokens) < len(part):
                more = read(first + shared, first + len(part))
                if not self._has_room(more.nbytes, most_bytes, block):
                    break
                block.tokens, block.key_values = part, np.concatenate([block.key_values, more], axis=3)
            elif block is None or shared < len(part):
                key_values = read(first, first + len(part))
                if not self._has_room(key_values.nbytes, most_bytes):
                    break
                block = _Block(part, key_values, self._uses)
                siblings.append(block)
            block.used = self._uses
            siblings, first = block.children, first + len(part)
        self.trim()

    def match(self, tokens: Sequence[int]) -> list[KeyValues]:
        """Keys and values of the longest known beginning of `tokens`, piece by piece."""
        self._uses += 1
        found = []
        for block, shared in self._path(tokens):
            block.used = self._uses
            found.append(block.key_values[:, :, :, :shared])
        return found

    def trim(self, most_bytes: int | None = None) -> None:
        """Drop unpinned blocks, the least recently used first, until the rest keeps to the limit.

        Args:
            most_bytes: then drop any, until all keep to it; None: pinned blocks stay.
        """
        if not self._roots:
            return
        pinned = {id(block) for pin in self._living() for block, _ in self._path(pin.tokens)}
        free = [(block, siblings) for block, siblings in self._all() if id(block) not in pinned]
        _drop(free, sum(block.key_values.nbytes for block, _ in free) - self.limit_bytes)
        if most_bytes is not None:
            _drop(list(self._all()), self.nbytes - most_bytes)

    def _has_room(self, nbytes: int, most_bytes: int | None, extended: _Block | None = None) -> bool:
        """Whether so much can be added, if need be for what other texts have."""
        if most_bytes is None:
            return True
        others = [item for item in self._all() if item[0].used < self._uses and item[0] is not extended]
        _drop(others, self.nbytes + nbytes - most_bytes)
        return self.nbytes + nbytes <= most_bytes

    def clear(self) -> None:
        """Drop everything; pins stay, for what is added later."""
        self._roots.clear()

    def _living(self) -> list[PrefixPin]:
        with self._pins_lock:
            return list(self._pins)

    def _path(self, tokens: Sequence[int]) -> Iterator[tuple[_Block, int]]:
        """The blocks that hold the longest known beginning, with how many of their tokens belong to it."""
        siblings, first = self._roots, 0
        while first < len(tokens):
            block, shared = _best(siblings, tokens[first : first + BLOCK_TOKENS])
            if block is None:
                return
            yield block, shared
            if shared < BLOCK_TOKENS:
                return
            siblings, first = block.children, first + BLOCK_TOKENS

    def _all(self) -> Iterator[tuple[_Block, list[_Block]]]:
        """Every block with the list that it stands in, parents first."""
        waiting = [self._roots]
        while waiting:
            siblings = waiting.pop()
            for block in siblings:
                yield block, siblings
                waiting.append(block.children)


def _drop(blocks: list[tuple[_Block, list[_Block]]], surplus: int) -> None:
    """Drop blocks, the least recently used first, until `surplus` bytes are gone. Parents stand before children."""
    blocks.reverse()  # a block is used whenever one behind it is: of equally old ones, the one behind goes first
    for block, siblings in sorted(blocks, key=lambda item: item[0].used):
        if surplus <= 0:
            return
        siblings.remove(block)
        surplus -= block.key_values.nbytes


def _best(blocks: list[_Block], part: Sequence[int]) -> tuple[_Block | None, int]:
    """The block with most leading tokens in common with `part`, and how many; None if there is none."""
    best, most = None, 0
    for block in blocks:
        shared = common_prefix(block.tokens, part)
        if shared > most:
            best, most = block, shared
    return best, most
