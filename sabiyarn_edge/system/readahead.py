"""Asks the system to read a file into the page cache while a program goes on."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from .available_memory import AvailableMemory
from .regular_file import check_regular_file

__all__ = ["read_ahead"]

_PIECE_BYTES = 2**20  # Linux reads no more than a few hundred KiB to a few MiB of one request ahead
_SAMPLES = 16


def read_ahead(path: Path, *, at_most: int | None = None, root: Path = Path("/")) -> threading.Thread | None:
    """Have a file that is about to be mapped read from its first byte to its last, at the device's sequential speed.

    Touched page by page, a mapped file is read in pieces of the kernel's readahead (128 KiB), and each is waited for.
    This is a hint: nothing fails, and nothing is done for a file that is cached, for one that is larger than the memory
    which is left, and on systems without posix_fadvise or RWF_NOWAIT.

    Args:
        at_most: bytes of a file that may be read ahead; None: no bound but the memory that is left.
        root: as for `AvailableMemory.read`.

    Returns:
        The thread that asks, since the system lets it wait where the device has too much to do; None: nothing is asked.
    """
    if not (hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")):
        return None
    try:
        size = check_regular_file(path)
        if at_most is not None and size > at_most:
            return None
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if _is_cached(handle, size) or size > (AvailableMemory.read(root).here or 0):
        os.close(handle)
        return None
    thread = threading.Thread(target=_ask, args=(handle, size), name="sabiyarn-readahead", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads are allowed
        os.close(handle)
        return None
    return thread


def _is_cached(handle: int, size: int) -> bool:
    """Whether a few bytes of the file, first to last, can be read without waiting for the device."""
    byte = bytearray(1)
    try:
        for sample in range(_SAMPLES):
            os.preadv(handle, [byte], max(size - 1, 0) * sample // (_SAMPLES - 1), os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # the file system cannot tell
        return True
    return True


def _ask(handle: int, size: int) -> None:
    try:
        for start in range(0, size, _PIECE_BYTES):
            os.posix_fadvise(handle, start, min(_PIECE_BYTES, size - start), os.POSIX_FADV_WILLNEED)
    except OSError:
        pass
    finally:
        os.close(handle)
