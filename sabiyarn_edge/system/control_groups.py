"""Finds the control groups of this process, with which containers and services limit CPUs and memory."""

from __future__ import annotations

from pathlib import Path

__all__ = ["control_groups"]


def control_groups(root: Path, controller: str) -> list[Path]:
    """Return the folders of this process's groups of a controller, and of all groups around them.

    In a container /proc/self/cgroup may name a path of the host that is not there. Then only the outermost group
    counts, which is the container's.

    Args:
        root: where /proc and /sys are; tests have others.
        controller: "cpu" or "memory".

    Source: cgroups(7), for both versions.
    """
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    # Of version 1, controllers that are mounted together share a folder: "cpu,cpuacct".
    version_1 = [folder for folder in mounted.glob(f"*{controller}*") if controller in folder.name.split(",")]
    groups = {mounted, *version_1}
    for line in lines:
        _, controllers, path = (line + "::").split(":")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        tops = version_1 if controllers else [mounted, mounted / "unified"]
        inner = Path(path.lstrip("/"))
        for top in tops:
            groups.update(top / part for part in (inner, *inner.parents))
    return sorted(group for group in groups if group.is_dir())
