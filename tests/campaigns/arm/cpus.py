"""The CPU models of the board, as Linux describes them on a Raspberry Pi or a phone.

qemu-user executes the instructions of a CPU model, but shows the host's /proc/cpuinfo and /sys. These describe another
architecture: onnxruntime reads both to choose its kernels, finds no known CPU, or crashes. So the board gets its own
files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CORES = 4


@dataclass(frozen=True)
class Cpu:
    """A CPU model of qemu, and the lines of /proc/cpuinfo that its board shows."""

    board: str
    part: int  # of the register MIDR_EL1
    features: str  # as Raspberry Pi OS (64-bit) prints them

    def cpuinfo(self) -> str:
        """/proc/cpuinfo."""
        core = (
            "BogoMIPS\t: 108.00\n"
            f"Features\t: {self.features}\n"
            "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
            f"CPU part\t: 0x{self.part:03x}\nCPU revision\t: 3\n"
        )
        return "".join(f"processor\t: {number}\n{core}\n" for number in range(CORES))


ARMV8_0 = "fp asimd evtstrm crc32 cpuid"
CPUS = {
    "cortex-a53": Cpu("Raspberry Pi 3", 0xD03, ARMV8_0),
    "cortex-a72": Cpu("Raspberry Pi 4", 0xD08, ARMV8_0),
    "cortex-a76": Cpu(
        "Raspberry Pi 5",
        0xD0B,
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
    "max": Cpu(
        "phone of Armv8.6 and later",
        0xD47,  # Cortex-A710
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp "
        "i8mm bf16",
    ),
}


def write_sysfs(root: Path) -> None:
    """Write the files of /sys about cores into the root file system `root`."""
    folder = root / "sys/devices/system/cpu"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("possible", "present", "online"):
        (folder / name).write_text(f"0-{CORES - 1}\n", encoding="ascii")
