"""Examines the memory and CPUs that this process may use."""

from __future__ import annotations

import dataclasses

from ..system.available_memory import AvailableMemory
from ..system.cpus import usable_cpus
from .finding import Finding
from .system import MIB, System

__all__ = ["examine_memory", "examine_threads"]

_SMALL = 256 * MIB
"""Less available memory than this gives a warning. SabiYarn-125M in 8 bits takes 42 MiB of private memory for 256
tokens (Python and onnxruntime included), and 169 MiB of mapped weights."""


def examine_memory(system: System) -> Finding:
    """Examine RAM, swap, and limits of control groups."""
    memory = AvailableMemory.read(system.root)
    facts = {**dataclasses.asdict(memory), "here": memory.here}
    if memory.here is None or memory.available is None or memory.total is None:
        return Finding("memory", "ok", "the system does not tell", facts=facts)
    text = f"{memory.available / MIB:.0f} of {memory.total / MIB:.0f} MiB available, " + (
        f"swap {memory.swap / MIB:.0f} MiB" if memory.swap else "no swap"
    )
    if memory.group_limit is not None and memory.group_left is not None:
        text += (
            f"; this control group may have {memory.group_limit / MIB:.0f} MiB, "
            f"{memory.group_left / MIB:.0f} are left"
        )
    if memory.here >= _SMALL:
        return Finding("memory", "ok", text, facts=facts)
    if memory.group_left == memory.here:
        remedy = "Raise the limit of the container or service (systemd: MemoryMax=, Docker: --memory)."
    else:
        remedy = "End other programs; a desktop alone takes some hundred MiB (`sudo raspi-config`: boot to console)."
    return Finding("memory", "warning", text, remedy, facts)


def examine_threads(system: System) -> Finding:
    """Count the CPUs, within a container's quota."""
    threads = usable_cpus(system.root)
    return Finding("threads", "ok", f"{threads} (CPUs that this process may use)", facts={"threads": threads})
