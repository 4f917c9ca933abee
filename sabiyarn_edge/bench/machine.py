"""Describes the machine that a result was taken on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._core import linear_kernels
from ..system.available_memory import AvailableMemory
from ..system.cpus import usable_cpus

__all__ = ["PACKAGES", "describe_machine"]

PACKAGES = ("sabiyarn-edge", "onnxruntime", "numpy")


def describe_machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return date, CPU, instruction set of the matmuls, cores, memory, system and versions, ready for JSON."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # not installed: the result then says nothing of it
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _cpu_name(),
        "instruction_set": linear_kernels()[0],
        "cpus": usable_cpus(),
        "memory_bytes": AvailableMemory.read().total,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }


def _cpu_name() -> str:
    """Return the board's name if it has one (Raspberry Pi 4 Model B ...), else the system's name of the CPU."""
    try:
        board = Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n ")
    except OSError:
        board = ""
    return board or _model_name() or platform.processor() or platform.machine()


def _model_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""
