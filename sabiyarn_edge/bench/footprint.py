"""The memory of this process: its own, mapped from files, and the most it ever had."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["footprint", "forget_peak"]

_FIELDS = {"RssAnon": "anonymous", "RssFile": "mapped", "RssShmem": "shared", "VmHWM": "peak"}


def footprint() -> dict[str, int]:
    """Bytes now in memory.

    "anonymous" belongs to this process alone and cannot be dropped; "mapped" are clean pages of files, which
    processes share and the system may drop; "shared" is memory without a file that could be shared; "peak" is the
    most that all of it came to. Where there is no /proc (macOS) "peak" is all that is known.
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
    """Let the peak begin anew; does nothing where the system cannot."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
