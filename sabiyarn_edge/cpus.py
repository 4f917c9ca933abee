"""How many CPUs this process may keep busy."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["usable_cpus"]


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may keep busy: its affinity mask, cut to its container's quota, at least 1.

    Args:
        root: where /proc and /sys are; tests have others.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(min([cpus, *_quotas(root)]), 1)


def _quotas(root: Path) -> list[int]:
    """CPUs that each control group around this process grants, rounded up.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max: "quota period", in microseconds) and
    https://docs.kernel.org/scheduler/sched-bwc.html (version 1: two files, quota -1 for none).
    """
    found = []
    for group in _groups(root):
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


def _groups(root: Path) -> list[Path]:
    """Folders of this process's control groups and of those around them, the outermost one included.

    In a container /proc/self/cgroup may name a path of the host that is not there: then only the outermost counts,
    which is the container's own.
    """
    mounted = root / "sys/fs/cgroup"
    groups = {mounted, mounted / "cpu", mounted / "cpu,cpuacct"}
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = (line + "::").split(":")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        tops = [mounted / "cpu", mounted / "cpu,cpuacct"] if controllers else [mounted, mounted / "unified"]
        for top in tops:
            inner = Path(path.lstrip("/"))
            groups.update(top / part for part in (inner, *inner.parents))
    return sorted(groups)
