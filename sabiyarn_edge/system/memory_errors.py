"""Tells errors for want of memory from others: libraries report them in words only."""

from __future__ import annotations

__all__ = ["ran_out_of_memory"]

_WORDS = (
    "bad_alloc",
    "bad allocation",
    "failed to allocate memory",
    "cannot allocate memory",
    "failed to map segment",  # the loader of shared libraries
    "mmap failed",
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error, onnxruntime's or Python's, says that there was no memory or no address space."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(word in text for word in _WORDS)
