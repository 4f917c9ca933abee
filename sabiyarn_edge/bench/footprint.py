"""Reads the memory of this process: private, mapped from files, and the peak."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["footprint", "forget_peak"]

_FIELDS = {"RssAnon": "anonymous", "RssFile": "mapped", "RssShmem": "shared", "VmHWM": "peak"}


def footprint() -> dict[str, int]:
    """Return the bytes now in memory.

    "anonymous" is private memory, which cannot be dropped. "mapped" are clean pages of files, which processes share and
    the system may drop. "shared" is shareable memory without a file. "peak" is the highest sum of all. Without /proc
    (macOS) only "peak" is known.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"peak": peak if sys.platform == "darwin" else peak * 1024}  # macOS counts in bytes
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {ours: int(fields[name].split()[0]) * 1024 for name, ours in _FIELDS.items() if name in fields}


def forget_peak() -> None:
    """Reset the peak. Does nothing if the system cannot."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
