"""Builds the core and its C++ tests with CMake and runs them with ctest; with sanitizers the Python modules too."""

from __future__ import annotations

import os
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


def run(*command: str, **variables: str) -> str:
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **variables}
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def build(folder: Path, **options: str) -> None:
    options |= {"CMAKE_MAKE_PROGRAM": tool("ninja")}
    # With sanitizers the compiler's time counts more than the program's.
    options.setdefault("CMAKE_CXX_FLAGS_RELWITHDEBINFO", "-O1 -g")
    defines = [f"-D{name}={value}" for name, value in options.items()]
    run(tool("cmake"), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *defines)
    run(tool("cmake"), "--build", str(folder))


@pytest.mark.parametrize("sanitizer", ["OFF", "address", "thread"])
def test_native(sanitizer: str, request: pytest.FixtureRequest) -> None:
    sanitize = sanitizer != "OFF"
    if sanitize and not request.config.getoption("--sanitize"):
        pytest.skip("the sanitizers of addresses, undefined behaviour and threads run with --sanitize")
    folder = ROOT / "build" / (f"native-{sanitizer}" if sanitize else "native")
    build(
        folder,
        CMAKE_BUILD_TYPE="RelWithDebInfo" if sanitize else "Release",
        SABIYARN_EDGE_PYTHON="OFF",
        SABIYARN_EDGE_TESTS="ON",
        SABIYARN_EDGE_WERROR="ON",
        SABIYARN_EDGE_SANITIZE=sanitizer,
    )
    run(tool("ctest"), "--test-dir", str(folder), "--output-on-failure")


MODULE_TESTS = [
    "tests/core",
    *(f"tests/decoding/test_{name}.py" for name in ("beam_search", "decode_state", "draws")),
    *(
        f"tests/engine/test_{name}.py"
        for name in ("prefix_reuse", "ring_schedules", "session_file", "sliding")
    ),
    "tests/engine/test_untrusted_graphs.py",
    "tests/campaigns/test_fuzz.py",
    "tests/campaigns/test_fuzz_inputs.py",
    "tests/test_generator.py",
    "tests/test_text_session.py",
    "tests/text/test_stop_hold.py",
]
"""Those that pass memory between Python, the two modules and onnxruntime."""


def test_the_python_modules_with_the_sanitizers_of_addresses_and_undefined_behaviour(
    request: pytest.FixtureRequest,
) -> None:
    if not request.config.getoption("--sanitize"):
        pytest.skip("runs with --sanitize, which builds the Python modules anew")
    pybind11 = pytest.importorskip("pybind11", reason="needs what builds the modules: pybind11 and cython")
    pytest.importorskip("Cython", reason="needs what builds the modules: pybind11 and cython")
    # Python is no sanitized program: what it would link with is loaded first. Both are GCC's.
    libraries = [run("c++", f"-print-file-name={name}").strip() for name in ("libasan.so", "libstdc++.so")]
    if not all(Path(library).is_absolute() for library in libraries):
        pytest.skip("needs GCC as c++, with its libasan")
    folder = ROOT / "build/native-modules"
    build(
        folder,
        CMAKE_BUILD_TYPE="RelWithDebInfo",
        SABIYARN_EDGE_PYTHON="ON",
        SABIYARN_EDGE_TESTING="ON",
        SABIYARN_EDGE_SANITIZE="address",
        Python_EXECUTABLE=sys.executable,
        pybind11_DIR=pybind11.get_cmake_dir(),
    )
    plugins = ["-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "tests.sanitized_modules"]
    run(
        *(sys.executable, "-m", "pytest", "-q", *plugins, *MODULE_TESTS),
        LD_PRELOAD=" ".join(libraries),
        ASAN_OPTIONS="detect_leaks=0",  # Python itself frees little at its end
        PYTHONMALLOC="malloc",  # Python's own allocator would hide its blocks
        SABIYARN_EDGE_MODULES=str(folder),
    )
