"""Builds our wheel for the board with this machine's cross compiler; nothing is compiled under emulation.

A build learns from Python's sysconfig what to build for. Two variables that CPython's own cross builds use make this
machine's interpreter answer with the board's values: _PYTHON_HOST_PLATFORM and _PYTHON_SYSCONFIGDATA_NAME.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

from tests.campaigns.arm.board import Board, BoardError, run

REPOSITORY = Path(__file__).parents[3]
TOOLCHAIN = Path(__file__).with_name("aarch64-linux-gnu.cmake")
SYSCONFIG = "_sysconfigdata__aarch64-linux-gnu"


def build_wheel(board: Board, cache: Path) -> Path:
    """Build the wheel of this checkout for the board's Python, with what only tests call.

    Raises:
        BoardError: the build failed, or this machine has no Python of the board's version.
    """
    version = board.python_version
    python = build_environment(version, cache)
    settings = fresh_folder(cache / f"sysconfig-{board.release}")
    shutil.copy(board.root / f"usr/lib/python{version}/{SYSCONFIG}.py", settings)
    # Python's headers alone: the board's other headers would hide those of the cross compiler.
    headers = fresh_folder(cache / f"include-{board.release}")
    for name in (f"python{version}", f"aarch64-linux-gnu/python{version}"):
        shutil.copytree(board.root / "usr/include" / name, headers / name)
    out = fresh_folder(cache / f"wheel-{board.release}")
    options = {
        "build-dir": str(cache / f"build-{board.release}"),
        "cmake.args": f"-DCMAKE_TOOLCHAIN_FILE={TOOLCHAIN}",
        "cmake.define.SABIYARN_EDGE_TESTING": "ON",
        "cmake.define.Python_INCLUDE_DIR": str(headers / f"python{version}"),
        "cmake.define.CMAKE_CXX_FLAGS": f"-isystem {headers}",
    }
    command = [str(python), "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={out}"]
    run(
        [
            *command,
            *(f"--config-settings={name}={value}" for name, value in options.items()),
            str(REPOSITORY),
        ],
        _PYTHON_HOST_PLATFORM="linux-aarch64",
        _PYTHON_SYSCONFIGDATA_NAME=SYSCONFIG,
        PYTHONPATH=str(settings),
    )
    (wheel,) = out.glob("*.whl")
    return wheel


def build_environment(version: str, cache: Path) -> Path:
    """The Python of a virtual environment of that version, with the build requirements of pyproject.toml."""
    here = "{}.{}".format(*sys.version_info)
    base = sys.executable if version == here else shutil.which(f"python{version}")
    if base is None:
        raise BoardError(
            f"the board has Python {version}, and only the same version builds wheels for it: there is no "
            f"python{version} on PATH. Install it, or choose another --release."
        )
    folder = cache / f"build-environment-{version}"
    python = folder / "bin/python"
    if not python.exists():
        run([base, "-m", "venv", str(folder)])
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    requirements = [*project["build-system"]["requires"], "cmake>=3.26", "ninja"]
    run([str(python), "-m", "pip", "install", *requirements])
    return python


def fresh_folder(path: Path) -> Path:
    """An empty folder at `path`."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
