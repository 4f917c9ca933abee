"""Weights in private memory instead of a mapped file, for onnxruntime to use where they lie."""

from __future__ import annotations

import contextlib
import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelFolderError
from ..model_folder.weights_file import WeightsHeader

__all__ = ["HUGE_PAGE", "ResidentWeights"]

HUGE_PAGE = 2 * 2**20
"""Bytes of the pages that are asked for: those of x86-64, and of aarch64 where ordinary ones have 4 KiB."""


class ResidentWeights:
    """A copy of weights.bin that the system cannot drop, in huge pages where it has them.

    A matrix product reads all weights once a token, and with huge pages the CPU looks up fewer addresses for it. Only
    whole huge pages are asked for, so the copy takes the file's size and no more.

    Args:
        path: weights.bin.
        header: its header.

    Raises:
        ModelFolderError: the file cannot be read, was cut meanwhile, or a tensor is not what the header says.
        MemoryError: there is no memory or no address space for it.
    """

    def __init__(self, path: Path, header: WeightsHeader) -> None:
        self._bytes = _aligned(header.end)
        try:
            with path.open("rb", buffering=0) as file:
                read, room = 0, self._bytes.data
                while read < len(room):
                    count = file.readinto(room[read:])
                    if not count:
                        raise ModelFolderError(
                            f"{path} was cut to {read} bytes while it was read. Copy the whole model folder again."
                        )
                    read += count
        except OSError as error:  # a card that wears out
            raise ModelFolderError(f"cannot read {path}: {error.strerror or error}.") from error
        self._path, self._header = path, header

    def hand_to(self, options: Any) -> list[Any]:
        """Let sessions made with these `onnxruntime.SessionOptions` use the tensors.

        Returns: what has to live as long as the sessions.

        onnxruntime does not hold them against the graph; operators look at the types and shapes of what they are given.
        """
        import onnxruntime

        values = []
        for name, tensor in self._header.tensors.items():
            content = self._bytes[tensor.offset : tensor.offset + tensor.nbytes]
            if tensor.dtype != "uint8" or math.prod(tensor.shape) != tensor.nbytes:
                raise ModelFolderError(
                    f"{self._path} says that {name} is {tensor.dtype} {list(tensor.shape)} in {tensor.nbytes} bytes; "
                    "tiles are uint8. Copy the whole model folder again, or export the checkpoint again."
                )
            value = onnxruntime.OrtValue.ortvalue_from_numpy(content.reshape(tensor.shape))
            options.add_initializer(name, value)
            values.append(value)
        return values


def _aligned(nbytes: int) -> NDArray[np.uint8]:
    """Zeros [nbytes] that begin with a huge page, of which the system is asked for all whole ones."""
    try:
        room = mmap.mmap(-1, nbytes + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(str(error)) from error
    begin = -np.frombuffer(room, np.uint8, 1).ctypes.data % HUGE_PAGE
    if hasattr(mmap, "MADV_HUGEPAGE") and nbytes >= HUGE_PAGE:
        with contextlib.suppress(OSError):  # a kernel without them
            room.madvise(mmap.MADV_HUGEPAGE, begin, nbytes // HUGE_PAGE * HUGE_PAGE)
    return np.frombuffer(room, np.uint8, nbytes, begin)
