"""Measures how fast this machine's memory can be read. A step reads every weight once, so it cannot be faster.

Each thread reads its part of a buffer that no cache holds, with one exclusive-or per word (_core.exclusive_or).
"""

from __future__ import annotations

import threading
import time

import numpy as np

from .._core import exclusive_or
from ..system.available_memory import AvailableMemory

__all__ = ["read_bandwidth"]

BUFFER_BYTES = 256 * 2**20
"""Eight times the 32 MiB of last-level cache that servers give to a few cores; a Raspberry Pi has at most 2 MiB."""

PASSES = 12


def read_bandwidth(threads: int, *, passes: int = PASSES, buffer_bytes: int | None = None) -> list[float]:
    """Return the read rate of each pass over the buffer, bytes per second.

    The best of them is the machine's bandwidth: other work can only make a pass slower.

    Args:
        threads: number of threads that read at once.
        buffer_bytes: size of the buffer. None: BUFFER_BYTES, or a quarter of the available memory if that is less.
    """
    if buffer_bytes is None:
        left = AvailableMemory.read().here
        buffer_bytes = BUFFER_BYTES if left is None else min(BUFFER_BYTES, left // 4)
    words = np.ones(max(buffer_bytes // 8, threads), np.uint64)  # written, so that pages are really there
    parts = np.array_split(words, threads)
    return [_pass(parts) for _ in range(passes)]


def _pass(parts: list[np.ndarray[tuple[int, ...], np.dtype[np.uint64]]]) -> float:
    """Return bytes per second from the first thread's start to the last one's end."""
    ready = threading.Barrier(len(parts))
    spans: list[tuple[float, float]] = []

    def read(part: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> None:
        ready.wait()
        started = time.perf_counter()
        exclusive_or(part)
        spans.append((started, time.perf_counter()))

    threads = [threading.Thread(target=read, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begin, end = min(start for start, _ in spans), max(end for _, end in spans)
    return sum(part.nbytes for part in parts) / (end - begin)
