"""System holds what the doctor examines, in one place, so that a test can replace the board."""

from __future__ import annotations

import platform
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MIB", "System"]

MIB = 2**20


@dataclass(frozen=True)
class System:
    """Root of /proc and /sys, and facts that cannot be read there."""

    root: Path = Path("/")
    machine: str = platform.machine()
    """The kernel's name of the architecture: "aarch64", "x86_64", "armv7l" ..."""
    python_bits: int = 8 * struct.calcsize("P")
    """Word size of this Python. A 32-bit system may run on a 64-bit kernel."""
    python: str = sys.executable
    """Interpreter of the child processes, which may crash."""
    prelude: str = ""
    """Code that runs first in the child processes; tests break something there."""
    seconds: float = 120.0
    """Seconds after which a child process counts as hung. A Raspberry Pi 3 imports onnxruntime in a few."""

    def read(self, path: str) -> str:
        """Return a file's text; "" if it cannot be read."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
        except OSError:
            return ""
