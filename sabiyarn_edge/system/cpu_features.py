"""What the kind of CPU decides: how weights are packed."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["describe_cpu"]

_X86 = ("vendor_id", "cpu family", "model", "model name", "flags")
_ARM = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features")


def describe_cpu(cpuinfo: str | Path = "/proc/cpuinfo") -> str:
    """All that is known of this machine's CPUs: model and instruction sets. Equal texts: interchangeable CPUs.

    Boards with two kinds of core (big.LITTLE) name both. Where there is no /proc/cpuinfo (macOS, Windows) it is
    what Python's platform module knows.
    """
    lines = {platform.machine()}
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "\n".join([*lines, platform.processor(), platform.platform()])
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in (*_X86, *_ARM):
            lines.add(f"{name.strip()}: {' '.join(sorted(value.split()))}")
    return "\n".join(sorted(lines))
