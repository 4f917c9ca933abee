"""System: what the doctor looks at, in one place, so that a test can put another board there."""

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
    """Where /proc and /sys are, and what cannot be read there."""

    root: Path = Path("/")
    machine: str = platform.machine()
    """As the kernel names it: "aarch64", "x86_64", "armv7l" ..."""
    python_bits: int = 8 * struct.calcsize("P")
    """Of this Python; a 32-bit system may run on a 64-bit kernel."""
    python: str = sys.executable
    """Runs the tries that may crash."""
    prelude: str = ""
    """Code with which those tries begin; tests break something there."""
    seconds: float = 120.0
    """After which such a try has hung; a Raspberry Pi 3 imports onnxruntime in a few seconds."""

    def read(self, path: str) -> str:
        """A file's text; "" if it cannot be read."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
        except OSError:
            return ""
