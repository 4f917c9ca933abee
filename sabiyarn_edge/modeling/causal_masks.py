"""Causal masks on demand: one per power of two, kept, and none before it is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["CausalMaskCache"]


class CausalMaskCache:
    """Square bool masks, True = may attend, of smallest, 2 * smallest, ... up to largest positions.

    A mask of n positions takes n * n bytes: 16 MiB at 4096, 1 GiB at 32768. The ordinary paths need none.
    """

    def __init__(self, *, largest: int, smallest: int = 64) -> None:
        self._smallest = smallest
        self._largest = largest
        self._masks: dict[tuple[int, torch.device], Tensor] = {}

    @property
    def sizes(self) -> list[int]:
        """Sizes made so far, ascending."""
        return sorted({size for size, _ in self._masks})

    @property
    def nbytes(self) -> int:
        """Bytes of all masks made so far."""
        return sum(mask.nbytes for mask in self._masks.values())

    def rows(self, first: int, count: int, device: torch.device) -> Tensor:
        """What positions first ... first + count - 1 may see: bool [count, first + count], a view."""
        end = first + count
        size = min(max(self._smallest, 1 << (end - 1).bit_length()), self._largest)
        mask = self._masks.get((size, device))
        if mask is None:
            mask = torch.ones(size, size, dtype=torch.bool, device=device).tril_()
            self._masks[size, device] = mask
        return mask[first:end, :end]

    def free(self) -> None:
        """Release all masks; they are made again when needed."""
        self._masks = {}
