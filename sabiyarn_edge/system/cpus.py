"""Counts the CPUs that this process may keep busy."""

from __future__ import annotations

import math
import os
from pathlib import Path

from .control_groups import control_groups

__all__ = ["usable_cpus"]


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the CPUs that this process may keep busy: its affinity mask, limited by its container's quota, at least 1.

    Args:
        root: where /proc and /sys are; tests have others.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min([cpus, *_quotas(root)])


def _quotas(root: Path) -> list[int]:
    """Return the CPUs that each control group of this process grants, rounded up.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max: "quota period", in microseconds) and
    https://docs.kernel.org/scheduler/sched-bwc.html (version 1: two files, quota -1 for none).
    """
    found = []
    for group in control_groups(root, "cpu"):
        try:
            if (group / "cpu.max").is_file():
                quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
            else:
                quota = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
                period = (group / "cpu.cfs_period_us").read_text(encoding="ascii")
            if quota != "max" and int(quota) > 0:
                found.append(math.ceil(int(quota) / int(period)))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # this group sets no quota
    return found
