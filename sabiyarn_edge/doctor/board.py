"""Examines board, CPU and word size of the system."""

from __future__ import annotations

import re

from .finding import Finding
from .system import System

__all__ = ["examine_board", "examine_cpu", "examine_width"]

# CPU part of Arm's own cores in /proc/cpuinfo. Source: Arm's MIDR_EL1 part numbers, as in util-linux's lscpu-arm.c.
_ARM_CORES = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD41: "Cortex-A78",
    0xD44: "Cortex-X1",
}
_ARM = 0x41
_OF_INTEREST = (
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "sve",
    "avx2",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
)


def examine_board(system: System) -> Finding:
    """Find the board's name in the device tree or the firmware."""
    name = system.read("proc/device-tree/model") or system.read("sys/firmware/devicetree/base/model")
    if not name:
        parts = (system.read(f"sys/class/dmi/id/{file}") for file in ("sys_vendor", "product_name"))
        name = " ".join(part for part in parts if part)
    return Finding("board", "ok", name or "no name known", facts={"board": name or None})


def examine_width(system: System) -> Finding:
    """Check that system and Python are 64-bit, on a CPU that onnxruntime has wheels for."""
    facts = {"machine": system.machine, "python_bits": system.python_bits}
    if system.python_bits == 64 and system.machine in ("x86_64", "AMD64", "aarch64", "arm64"):
        return Finding("system", "ok", f"64-bit, {system.machine}", facts=facts)
    if system.python_bits == 32 and system.machine in ("x86_64", "aarch64"):
        text = f"a 32-bit Python on a 64-bit kernel ({system.machine})"
    else:
        text = f"{system.machine}, Python of {system.python_bits} bits"
    return Finding(
        "system",
        "problem",
        f"{text}; onnxruntime has wheels for 64-bit x86 and ARM only",
        "Install a 64-bit system: Raspberry Pi OS (64-bit) runs on a Raspberry Pi 3, 4, 5 and Zero 2.",
        facts,
    )


def examine_cpu(system: System) -> Finding:
    """Find the cores and the instruction sets that decide speed."""
    cpuinfo = system.read("proc/cpuinfo")
    fields = re.findall(r"^([^\t:\n]+?)\s*:[ \t]*(.*)$", cpuinfo, re.MULTILINE)
    found = [value for name, value in fields if name in ("flags", "Features")]
    features = sorted(set(found[0].split()) & set(_OF_INTEREST)) if found else []
    names = _arm_cores(fields) or [value for name, value in fields if name == "model name"]
    cores = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "unknown CPU"
    text = f"{cores}; {' '.join(features) or 'no instruction sets known'}"
    facts = {"cores": names, "features": features}
    return Finding("CPU", "ok", text, facts=facts)


def _arm_cores(fields: list[tuple[str, str]]) -> list[str]:
    makers = [int(value, 16) for name, value in fields if name == "CPU implementer"]
    parts = [int(value, 16) for name, value in fields if name == "CPU part"]
    return [
        _ARM_CORES.get(part, f"Arm core {part:#x}") if maker == _ARM else f"core {maker:#x}/{part:#x}"
        for maker, part in zip(makers, parts, strict=False)
    ]
