"""Memory and CPUs that this process may use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..control_groups import control_groups
from ..cpus import usable_cpus
from .finding import Finding
from .system import MIB, System

__all__ = ["available_bytes", "examine_memory", "examine_threads"]

_UNLIMITED = 2**60  # bytes: cgroup v1 says 2**63 rounded to pages
_SMALL = 256 * MIB
"""Less than this to spare is little: SabiYarn-125M in 8 bits takes 42 MiB of its own for 256 tokens (Python and
onnxruntime included), beside 169 MiB of mapped weights."""


def examine_memory(system: System) -> Finding:
    """RAM, swap, and limits of control groups."""
    meminfo = _meminfo(system)
    limit, left = _group_limit(system)
    facts: dict[str, Any] = {
        "total": meminfo.get("MemTotal"),
        "available": meminfo.get("MemAvailable"),
        "swap": meminfo.get("SwapTotal"),
        "group_limit": limit,
        "available_here": available_bytes(system),
    }
    if facts["available"] is None:
        return Finding("memory", "ok", "the system does not tell", facts=facts)
    swap = facts["swap"] or 0
    text = (
        f"{facts['available'] / MIB:.0f} of {facts['total'] / MIB:.0f} MiB available, "
        + (f"swap {swap / MIB:.0f} MiB" if swap else "no swap")
        + (
            f"; this control group may have {limit / MIB:.0f} MiB, {left / MIB:.0f} are left"
            if limit is not None and left is not None
            else ""
        )
    )
    if facts["available_here"] < _SMALL:
        remedy = "End other programs; a desktop alone takes some hundred MiB (`sudo raspi-config`: boot to console)."
        if limit is not None and left == facts["available_here"]:
            remedy = "Raise the limit of the container or service (systemd: MemoryMax=, Docker: --memory)."
        return Finding("memory", "warning", text, remedy, facts)
    return Finding("memory", "ok", text, facts=facts)


def available_bytes(system: System) -> int | None:
    """What a new process may take: what the system can give, or what the control group has left if that is less."""
    available = _meminfo(system).get("MemAvailable")
    left = _group_limit(system)[1]
    known = [size for size in (available, left) if size is not None]
    return min(known) if known else None


def examine_threads(system: System) -> Finding:
    """CPUs at hand, and what a container's quota leaves of them."""
    threads = usable_cpus(system.root)
    return Finding("threads", "ok", f"{threads} (CPUs that this process may use)", facts={"threads": threads})


def _meminfo(system: System) -> dict[str, int]:
    """Bytes by their name in /proc/meminfo."""
    found = {}
    for line in system.read("proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * 1024  # the kernel counts in KiB
    return found


def _group_limit(system: System) -> tuple[int | None, int | None]:
    """The limit of the control group that has the least left, and that, bytes; pages of files can be dropped."""
    found: list[tuple[int, int]] = []
    for group in control_groups(system.root, "memory"):
        for limit_file, usage_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, usage = system.number(group / limit_file), system.number(group / usage_file)
            if limit is not None and usage is not None and limit < _UNLIMITED:
                droppable = min(_file_pages(group), usage)
                found.append((limit, max(limit - usage + droppable, 0)))
    if not found:
        return None, None
    return min(found, key=lambda pair: pair[1])


def _file_pages(group: Path) -> int:
    """Bytes of files that the group keeps in memory and can drop."""
    try:
        words = (group / "memory.stat").read_text(encoding="ascii").split()
    except OSError:
        return 0
    stat = dict(zip(words[::2], words[1::2], strict=False))
    return int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
