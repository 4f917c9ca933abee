"""What the build refuses, and what pyproject.toml promises about it."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Configure the core alone, without the Python modules."""
    command = ["cmake", "-S", str(REPOSITORY), "-B", str(folder), "-DSABIYARN_EDGE_PYTHON=OFF", *options]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs a compiler that knows -m32")
def test_a_32_bit_system_is_refused_with_the_reason(tmp_path: Path) -> None:
    # CMake learns the size of a pointer without linking: 32-bit libraries are rarely installed.
    run = configure(tmp_path, "-DCMAKE_CXX_FLAGS=-m32", "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY")
    assert run.returncode != 0
    message = " ".join(run.stderr.split())
    assert "needs a 64-bit system, and this compiler makes 32-bit programs" in message
    assert re.search("onnxruntime, .* has no packages for 32-bit systems", message)
    assert "install the 64-bit Raspberry Pi OS" in message
