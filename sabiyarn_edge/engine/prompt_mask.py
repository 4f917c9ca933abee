"""PromptMask: the attention mask of one prompt, in the form that the graph takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import MaskCache

__all__ = ["PromptMask"]

_AS_GOOD_AS_HIDDEN = -1e30
"""Additive values below (torch.finfo(float32).min is usual) leave a softmax weight of 0 beside any ordinary one."""


@dataclass(frozen=True)
class PromptMask:
    """The attention mask of one prompt."""

    length: int
    """Tokens of the prompt."""
    values: NDArray[np.bool_] | NDArray[np.float32] | None
    """[length, length]: bool, True = may attend, or float32, added to the scores. None: causal."""
    later: NDArray[np.float32] | None = None
    """[length]: what tokens behind the prompt may see of it, additive; None: what its last token may."""

    @property
    def nbytes(self) -> int:
        """Bytes of `values`."""
        return 0 if self.values is None else self.values.nbytes

    def write(self, out: NDArray[np.float32], causal: MaskCache) -> None:
        """Write what the newest tokens of a text may see of it, additive.

        Args:
            out: [count, length], overwritten: of a text of `length` tokens the last `count`, which all belong to the
                prompt or all stand behind it.
            causal: gives the rows of several tokens behind the prompt.
        """
        count, end = out.shape
        first = end - count
        if first >= self.length:
            if count == 1:
                out[...] = 0
            else:
                causal.write_additive(first, out)
            out[:, : self.length] = self.last_row
        elif self.values is None:
            causal.write_additive(first, out)
        elif self.values.dtype == np.bool_:
            out[...] = -np.inf
            np.copyto(out, 0, where=self.values[first:end, :end])
        else:
            out[...] = self.values[first:end, :end]

    @cached_property
    def last_row(self) -> NDArray[np.float32]:
        """The mask row of tokens behind the prompt: additive, float32 [length]."""
        if self.later is not None:
            return self.later
        if self.values is None:
            return np.zeros(self.length, np.float32)
        last = self.values[-1]
        return (
            np.where(last, 0, -np.inf).astype(np.float32)
            if last.dtype == np.bool_
            else last.astype(np.float32)
        )

    def of_kept(self, kept: Sequence[int]) -> PromptMask:
        """The mask of the tokens that are kept of a text that begins with this prompt.

        Tokens behind the prompt see what its last one saw, and one another up to themselves. If every token that
        a token saw was dropped, it sees itself.

        Args:
            kept: places in the text of the tokens that are kept, ascending.
        """
        if self.values is None:
            return PromptMask(len(kept), None)
        at = np.asarray(kept, np.int64)
        within = np.minimum(at, self.length - 1)
        values = self.values[np.ix_(within, within)]
        may, may_not = (True, False) if values.dtype == np.bool_ else (0, -np.inf)
        new = at >= self.length
        values[:, new] = may_not
        values[np.tri(len(at), dtype=bool) & new[:, None] & new] = may
        blind = np.flatnonzero(~(values if values.dtype == np.bool_ else values > -np.inf).any(axis=1))
        values[blind, blind] = may
        return PromptMask(len(at), values, np.where(new, np.float32(0), self.last_row[within]))

    def chunks(self, most: int) -> Iterator[tuple[int, int]]:
        """Cut the prompt into runs (first, count) of `next_run`."""
        first = 0
        while first < self.length:
            count = self.next_run(first, most)
            yield first, count
            first += count

    def next_run(self, first: int, most: int) -> int:
        """How many tokens from `first` on are computed next, at most `most`.

        No token of a run looks ahead into a later run, so a run is longer than `most` where the mask ties more tokens
        together.
        """
        later, within = np.searchsorted(self._ends, [first, first + most], side="right")
        return int(self._ends[max(later, within - 1)]) - first

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where a run may end: no token before it sees one behind it."""
        if self.values is None:
            return np.arange(1, self.length + 1)
        reach = np.maximum.accumulate([_last_seen(row) for row in self.values])
        return np.flatnonzero(reach <= np.arange(self.length)) + 1


def _last_seen(row: NDArray[Any]) -> int:
    """Index of the last key that a query sees."""
    if row.dtype == np.bool_:
        seen = row
    else:
        seen = row > _AS_GOOD_AS_HIDDEN
        if not seen.any():  # then even the smallest values have weight
            seen = row > -np.inf
    return int(np.flatnonzero(seen)[-1])
