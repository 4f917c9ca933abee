"""Lays tensors out in weights.bin and streams them there, one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..model_folder.config import FORMAT_VERSION
from ..model_folder.weights_file import ALIGNMENT, StoredTensor, WeightsDigest, WeightsHeader
from .tensors import Array, Tensor, check_finite

__all__ = ["INLINE_LIMIT", "WeightsLayout", "plan_weights", "write_weights"]

INLINE_LIMIT = 16 * 1024
"""Bytes. Smaller tensors (norms, biases) stand in the graph: aligning wastes more than they hold."""

SMALL_TENSOR = 1024 * 1024
"""Bytes. Tensors below are aligned to SMALL_ALIGNMENT only: a model of 3 MB must not grow by a third."""

SMALL_ALIGNMENT = 4096

_WRITE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class WeightsLayout:
    """Which tensors stand in weights.bin, where, and which in the graph."""

    header: WeightsHeader
    """With empty hashes until the tensors have been written."""
    stored: tuple[Tensor, ...]
    """In the order of the file."""
    inline: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of tensors to write: padding and header not included."""
        return sum(tensor.nbytes for tensor in self.stored)


def plan_weights(tensors: Iterable[Tensor]) -> WeightsLayout:
    """Give every tensor of a graph its place; those that read the bytes of another have none of their own."""
    own = [tensor for tensor in tensors if not tensor.stored_as]
    stored = tuple(tensor for tensor in own if tensor.nbytes >= INLINE_LIMIT)
    inline = tuple(tensor for tensor in own if tensor.nbytes < INLINE_LIMIT)
    header = WeightsHeader(FORMAT_VERSION, "0" * 64, "0" * 64, {})
    start = 0
    while start < len(header.to_bytes()):  # longer offsets can make the header longer: a second round at most
        start = len(header.to_bytes())
        header = replace(header, tensors=_place(stored, start))
    return WeightsLayout(header, stored, inline)


def _place(tensors: Iterable[Tensor], offset: int) -> dict[str, StoredTensor]:
    places = {}
    for tensor in tensors:
        alignment = SMALL_ALIGNMENT if tensor.nbytes < SMALL_TENSOR else ALIGNMENT
        offset += -offset % alignment
        places[tensor.name] = StoredTensor(tensor.dtype, tensor.shape, offset, tensor.nbytes)
        offset += tensor.nbytes
    return places


def write_weights(
    layout: WeightsLayout, path: Path, *, progress: Callable[[int], object] = lambda nbytes: None
) -> WeightsHeader:
    """Write weights.bin and bring it to the disk.

    Args:
        progress: told the number of bytes after each piece written.

    Returns:
        The header as written, with both hashes.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    digest = WeightsDigest()
    with path.open("wb") as file:
        for tensor in layout.stored:
            file.seek(layout.header.tensors[tensor.name].offset)
            _write_tensor(file, tensor, digest, progress)
        inline_hash = _hash_inline(layout.inline)
        header = replace(layout.header, weights_hash=digest.finish(inline_hash), inline_hash=inline_hash)
        file.seek(0)
        file.write(header.to_bytes())
        file.flush()
        os.fsync(file.fileno())
    return header


def _write_tensor(
    file: BinaryIO, tensor: Tensor, digest: WeightsDigest, progress: Callable[[int], object]
) -> None:
    """A function of its own, so that nothing refers to a tensor's values when the next ones are computed."""
    digest.begin(tensor.name, tensor.dtype, tensor.shape)
    data = memoryview(load_checked(tensor).reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # until 3.12
    for begin in range(0, len(data), _WRITE_BYTES):
        piece = data[begin : begin + _WRITE_BYTES]
        file.write(piece)
        digest.update(piece)
        progress(len(piece))


def load_checked(tensor: Tensor) -> Array:
    """The values of a tensor, which must be finite and as described."""
    values = tensor.load()
    if (values.dtype.name, values.shape) != (tensor.dtype, tensor.shape):
        raise ValueError(
            f"{tensor.name} was described as {tensor.dtype} {tensor.shape} "
            f"but is {values.dtype.name} {values.shape}"
        )
    check_finite(values, tensor.name, tensor.dtype)
    return np.ascontiguousarray(values)


def _hash_inline(tensors: Iterable[Tensor]) -> str:
    digest = WeightsDigest()
    for tensor in tensors:
        digest.begin(tensor.name, tensor.dtype, tensor.shape)
        digest.update(load_checked(tensor).tobytes())
    return digest.finish()
