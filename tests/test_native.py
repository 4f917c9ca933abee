"""Builds the core and its C++ tests with CMake and runs them with ctest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent  # where pip puts cmake, ctest and ninja


def tool(name: str) -> str:
    found = shutil.which(name, path=str(SCRIPTS)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: the native tests cannot be built")
    return found


def run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize("sanitizer", ["OFF", "address", "thread"])
def test_native(sanitizer: str, request: pytest.FixtureRequest) -> None:
    sanitize = sanitizer != "OFF"
    if sanitize and not request.config.getoption("--sanitize"):
        pytest.skip("the sanitizers of addresses, undefined behaviour and threads run with --sanitize")
    build = ROOT / "build" / (f"native-{sanitizer}" if sanitize else "native")
    options = {
        "CMAKE_MAKE_PROGRAM": tool("ninja"),
        "CMAKE_BUILD_TYPE": "RelWithDebInfo" if sanitize else "Release",
        "SABIYARN_EDGE_PYTHON": "OFF",
        "SABIYARN_EDGE_TESTS": "ON",
        "SABIYARN_EDGE_WERROR": "ON",
        "SABIYARN_EDGE_SANITIZE": sanitizer,
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    run(tool("cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja", *defines)
    run(tool("cmake"), "--build", str(build))
    run(tool("ctest"), "--test-dir", str(build), "--output-on-failure")
