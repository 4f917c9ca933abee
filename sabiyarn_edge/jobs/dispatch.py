"""Dispatch: which worker of a cluster gets which lines, and what happens to those of a worker that is lost.

It is bookkeeping without a clock, a thread or a network: benchmarks/cluster.py runs a thousand simulated nodes through
the code that runs real ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .window import Window

__all__ = ["BLOCKS_EACH", "BLOCK_ROWS", "MOST_LOSSES", "Block", "Dispatch", "cluster_window"]

BLOCKS_EACH = 2
"""Blocks that a worker has at once: the rows that the end of one leaves idle run the other."""
MOST_LOSSES = 4
"""A line whose worker was lost so often is given up: it seems to be the reason. The last time it was alone there."""
BLOCK_ROWS = 4
"""Lines of a block for each row of a worker. Fewer, and a message is sent for less work; more, and the lines of a lost
worker come later."""
_ROUNDS_WAITING = 8
"""Times what all workers have, between the line that is written next and the one that is read next. While one worker is
found lost, and its lines are computed again, the others do so much."""

Item = TypeVar("Item")


@dataclass(slots=True)
class _Entry(Generic[Item]):
    item: Item
    lines: int
    losses: int = 0


@dataclass(slots=True)
class Block(Generic[Item]):
    """What one worker gets at once."""

    number: int
    worker: Hashable
    entries: list[_Entry[Item]]

    @property
    def items(self) -> list[Item]:
        """In the order of their lines."""
        return [entry.item for entry in self.entries]


class Dispatch(Generic[Item]):
    """Cuts the lines that wait into blocks, and gives each to the worker that has fewest.

    Blocks get smaller when fewer lines wait, which they do at the end of the input: then all workers end at about the
    same time (guided self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987).

    Args:
        block_lines: most lines of a block.
    """

    def __init__(self, block_lines: int) -> None:
        self.block_lines = block_lines
        self._waiting: deque[_Entry[Item]] = deque()
        self._waiting_lines = 0
        self._running: dict[int, Block[Item]] = {}
        self._blocks_of: dict[Hashable, set[int]] = {}
        self._with: list[dict[Hashable, None]] = [{} for _ in range(BLOCKS_EACH)]  # [blocks that they have]
        self._numbers = 0

    @property
    def workers(self) -> int:
        """Workers that are there."""
        return len(self._blocks_of)

    def join(self, worker: Hashable) -> None:
        """A worker is there."""
        self._blocks_of[worker] = set()
        self._with[0][worker] = None

    def leave(self, worker: Hashable) -> list[Item]:
        """A worker is lost. Its lines go to the front.

        Returns:
            Those that are given up.
        """
        numbers = self._blocks_of.pop(worker, None)
        if numbers is None:
            return []
        for workers in self._with:
            workers.pop(worker, None)
        given_up = []
        for number in sorted(numbers, reverse=True):
            for entry in reversed(self._running.pop(number).entries):
                entry.losses += 1
                if entry.losses == MOST_LOSSES:
                    given_up.append(entry.item)
                else:
                    self._waiting.appendleft(entry)
                    self._waiting_lines += entry.lines
        return given_up

    def add(self, item: Item, lines: int = 1) -> None:
        """A line waits.

        Args:
            lines: that it stands for, in a simulation.
        """
        self._waiting.append(_Entry(item, lines))
        self._waiting_lines += lines

    def next(self) -> Block[Item] | None:
        """The next block, and whose it is; None: nothing waits, or every worker has enough."""
        if not self._waiting:
            return None
        alone = _is_suspect(self._waiting[0])
        workers = next((workers for workers in self._with[: 1 if alone else None] if workers), None)
        if workers is None:
            return None
        worker = next(iter(workers))
        block = Block(self._numbers, worker, self._cut())
        self._numbers += 1
        self._running[block.number] = block
        self._blocks_of[worker].add(block.number)
        self._sort_in(worker, takes_more=not alone)
        return block

    def done(self, number: int) -> Block[Item] | None:
        """A block has come back; None: it has been given to another worker since."""
        block = self._running.pop(number, None)
        if block is not None:
            self._blocks_of[block.worker].remove(number)
            self._sort_in(block.worker)
        return block

    def _cut(self) -> list[_Entry[Item]]:
        shares = len(self._blocks_of) * BLOCKS_EACH
        most = min(max(self._waiting_lines // shares, 1), self.block_lines)
        entries: list[_Entry[Item]] = []
        lines = 0
        while self._waiting:
            entry = self._waiting[0]
            if entries and (_is_suspect(entries[0]) or _is_suspect(entry) or lines + entry.lines > most):
                break
            entries.append(self._waiting.popleft())
            lines += entry.lines
        self._waiting_lines -= lines
        return entries

    def _sort_in(self, worker: Hashable, *, takes_more: bool = True) -> None:
        for workers in self._with:
            workers.pop(worker, None)
        blocks = len(self._blocks_of[worker])
        if takes_more and blocks < BLOCKS_EACH:
            self._with[blocks][worker] = None


def _is_suspect(entry: _Entry[Item]) -> bool:
    """Whether a line is tried for the last time: alone in its worker, so that no other is given up for it."""
    return entry.losses == MOST_LOSSES - 1


def cluster_window(workers: int, block_lines: int) -> Window:
    """How many lines are given out, and how far reading runs ahead of writing.

    Twice as many are given out as workers have, so that a worker never waits for the reader.
    """
    at_work = workers * BLOCKS_EACH * block_lines
    return Window(2 * at_work, 2 * at_work, most_waiting=_ROUNDS_WAITING * at_work)
