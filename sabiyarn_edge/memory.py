"""How much memory this process holds, as the system tells it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["process_memory"]

_FIELDS = {"Anonymous": "process_anonymous", "Rss": "process_resident"}


def process_memory() -> dict[str, int]:
    """Bytes of this process: anonymous (its own, not backed by a file) and resident (all that is in memory).

    Empty where the system has no /proc/self/smaps_rollup (macOS).
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
