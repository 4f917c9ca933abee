"""Boards that are folders: what /proc and /sys say there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sabiyarn_edge.doctor import System

MIB = 2**20

CORTEX_A72 = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
PI_4 = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/cpuinfo": "".join(CORTEX_A72.format(number=number) for number in range(4)),
    "proc/meminfo": "MemTotal:        1889316 kB\nMemAvailable:    1532000 kB\nSwapTotal:        204796 kB\n",
}
PI_5 = {
    **PI_4,
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/cpuinfo": PI_4["proc/cpuinfo"]
    .replace("0xd08", "0xd0b")
    .replace("asimd ", "asimd asimdhp asimddp "),
}


def board(root: Path, files: dict[str, str] = PI_4, **options: Any) -> System:
    """A system whose files are `files`, 64-bit ARM unless options say otherwise."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return System(root=root, **{"machine": "aarch64", "python_bits": 64, **options})
