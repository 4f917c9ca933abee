"""Reads the memory of this process, and returns free heap pages to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

__all__ = ["map_large_blocks", "process_memory", "return_free_memory"]

_LARGE_BLOCK = 256 * 1024  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

_FIELDS = {"Anonymous": "process_anonymous", "Rss": "process_resident"}


def process_memory() -> dict[str, int]:
    """Return the bytes of this process: anonymous (private, without a file) and resident (all pages in memory).

    Empty if the system has no /proc/self/smaps_rollup (macOS).
    """
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        if name in _FIELDS:
            found[_FIELDS[name]] = int(rest.split()[0]) * 1024  # the kernel counts in KiB
    return found


def return_free_memory() -> None:
    """Return the free pages that malloc keeps to the system.

    onnxruntime allocates scratch memory of another size for every prompt length. glibc maps large blocks directly, but
    raises the threshold each time one is freed. Soon such blocks come from the heap and leave holes there: 2000 calls
    of random lengths would grow a process by 30 MiB. The call takes less than 1 ms for SabiYarn-125M. It does nothing
    if the C library has no malloc_trim.

    Source: mallopt(3), M_MMAP_THRESHOLD; malloc_trim(3).
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def map_large_blocks() -> None:
    """Have malloc map blocks of 256 KiB and more for themselves, so that freeing them returns their memory at once.

    Otherwise glibc raises that threshold to up to 32 MiB, and memory that threads free at the top of their heaps stays
    there, out of malloc_trim's reach: a limit would be exceeded by what earlier calls had freed. It holds for the whole
    process, and does nothing if the C library has no mallopt.

    Source: mallopt(3), M_MMAP_THRESHOLD: setting it switches its adjustment off.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl, macOS
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
    mallopt(_M_TRIM_THRESHOLD, _LARGE_BLOCK)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # musl, macOS
        return None
    function.argtypes, function.restype = [ctypes.c_size_t], ctypes.c_int
    return function
