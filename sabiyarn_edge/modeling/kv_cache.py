"""Keys and values of past tokens for the torch model, allocated when the first cached step needs them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import NumericalError
from ..model_folder.config import GPTJXConfig

__all__ = ["KvCache"]

FLOAT16_MAX = torch.finfo(torch.float16).max

MIN_CAPACITY = 64
"""Positions of the first allocation; a short answer never outgrows it."""


class KvCache:
    """One buffer per layer and side, [rows, n_heads, capacity, head_dim]; row b holds lengths[b] positions.

    Capacity follows the longest row in powers of two, up to block_size. Rows may have different lengths.
    Memory is 2 * n_layer * rows * n_embd * (4 or 2 bytes) per position: 72 MiB for SabiYarn-125M in float32
    at 1024 positions and one row.
    """

    def __init__(self, config: GPTJXConfig) -> None:
        self._num_layers = config.n_layer
        self._num_heads = config.n_heads
        self._head_dim = config.head_dim
        self._max_length = config.block_size
        self._dtype = torch.float16 if config.kv_cache_dtype == "float16" else torch.float32
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self.lengths: list[int] = []
        """Positions held by each row; empty before start() and after clear()."""
        self.visible: Tensor | None = None
        """Key padding given so far, bool [rows, length], True = may be seen; None when there is no
        padding."""

    @property
    def capacity(self) -> int:
        """Positions that each row has memory for."""
        if len(self._values) < self._num_layers:
            return 0
        return min(buffer.shape[2] for buffer in (*self._keys, *self._values))

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values."""
        return sum(buffer.nbytes for buffer in (*self._keys, *self._values))

    def start(self, num_rows: int, device: torch.device) -> None:
        """Begin with `num_rows` empty rows; memory of the same shape is used again, zeroed."""
        buffers = (*self._keys, *self._values)
        if any(buffer.shape[0] != num_rows or buffer.device != device for buffer in buffers):
            self.free()
        self.clear()
        self.lengths = [0] * num_rows

    def reserve(self, count: int, device: torch.device) -> None:
        """Make room for `count` more positions in every row, one layer at a time: the peak is one layer
        more."""
        needed = max(self.lengths) + count
        if needed <= self.capacity:
            return
        capacity = min(max(MIN_CAPACITY, 1 << (needed - 1).bit_length()), self._max_length)
        shape = (len(self.lengths), self._num_heads, capacity, self._head_dim)
        for buffers in (self._keys, self._values):
            for layer in range(self._num_layers):
                # Zeros, not garbage: attention multiplies hidden slots by 0, and 0 * NaN would be NaN.
                grown = torch.zeros(shape, dtype=self._dtype, device=device)
                if layer < len(buffers):  # from before, or from a growth that was interrupted
                    grown[:, :, : buffers[layer].shape[2]] = buffers[layer]
                    buffers[layer] = grown
                else:
                    buffers.append(grown)

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions of one layer behind each row's length; lengths change only in advance().

        Args:
            layer: index of the layer.
            key, value: [rows, n_heads, T, head_dim], the new tokens.

        Returns:
            All keys and values so far, [rows, n_heads, longest row + T, head_dim], in the dtype of `key`.
            They went through the storage dtype, the new ones too, so that results do not depend on how tokens
            are chunked.

        Raises:
            NumericalError: a float16 cache cannot hold them.
        """
        count = key.shape[2]
        end = max(self.lengths) + count
        stored: list[Tensor] = []
        for name, buffer, new in (("keys", self._keys[layer], key), ("values", self._values[layer], value)):
            if buffer.dtype == torch.float16:
                _check_float16(new, f"{name} of layer {layer}")
            if min(self.lengths) == max(self.lengths):
                buffer[:, :, end - count : end] = new
            else:
                for row, length in enumerate(self.lengths):
                    buffer[row, :, length : length + count] = new[row]
            stored.append(buffer[:, :, :end].to(key.dtype))
        return stored[0], stored[1]

    def advance(self, counts: Sequence[int]) -> None:
        """Count the positions that append() stored: counts[b] of row b are real, the rest will be
        overwritten."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def reorder(self, sources: Sequence[int]) -> None:
        """Row i continues what row sources[i] holds; rows may be dropped, repeated and exchanged (beams)."""
        if list(sources) == list(range(len(self.lengths))):
            return
        for buffers in (self._keys, self._values):
            for layer, buffer in enumerate(buffers):
                buffers[layer] = buffer[torch.tensor(sources, dtype=torch.int64, device=buffer.device)]
        self.lengths = [self.lengths[source] for source in sources]
        if self.visible is not None:
            self.visible = self.visible[torch.tensor(sources, dtype=torch.int64, device=self.visible.device)]

    def clear(self) -> None:
        """Forget and zero everything, keep the memory."""
        for buffer in (*self._keys, *self._values):
            buffer.zero_()
        self.lengths = []
        self.visible = None

    def free(self) -> None:
        """Forget everything and release the memory."""
        self._keys = []
        self._values = []
        self.lengths = []
        self.visible = None


def _check_float16(new: Tensor, name: str) -> None:
    """Refuse finite values that float16 would make infinite."""
    sizes = new.abs()
    largest = sizes.where(sizes.isfinite(), 0).max()  # NaN would be the maximum, whatever stands beside it
    if largest.half().isinf():
        raise NumericalError(
            f"the {name} reach {float(largest):g}, but float16 ends at {FLOAT16_MAX:g}. Load the model with "
            'kv_cache_dtype="float32"; in an export, "int8" (with scales of its own) does too.'
        )
