"""What the build refuses, and what pyproject.toml promises about it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import types
import zlib
from pathlib import Path

import pytest

import sabiyarn_edge
from sabiyarn_edge import _core
from sabiyarn_edge.engine import _decode
from sabiyarn_edge.engine.session_file import MAGIC

REPOSITORY = Path(__file__).parents[1]


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Configure the core, without the Python modules unless `options` ask for them."""
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


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-DSKBUILD_STATE=wheel"], False),
        (["-DSKBUILD_STATE=editable"], True),
        (["-DSKBUILD_STATE=wheel", "-DSABIYARN_EDGE_TESTING=ON"], True),
    ],
    ids=["wheel", "editable", "wheel-to-test"],
)
def test_wheels_leave_out_what_only_tests_call(tmp_path: Path, options: list[str], expected: bool) -> None:
    pybind11 = pytest.importorskip("pybind11", reason="needs what builds the modules: pybind11")
    found = [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}"]
    run = configure(tmp_path, "-DSABIYARN_EDGE_PYTHON=ON", *found, *options)
    assert run.returncode == 0, run.stderr
    command = ["cmake", "--build", str(tmp_path), "--target", "help"]
    targets = re.findall(r"\w+", subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert "_core" in targets
    assert ("_core_testing" in targets) == expected
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert "**/_core_testing.pyi" in settings["tool"]["scikit-build"]["wheel"]["exclude"]


def test_pip_learns_the_reason_before_it_looks_for_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    backend = REPOSITORY / project["backend-path"][0] / f"{project['build-backend']}.py"
    hooks = types.ModuleType("scikit_build_core.build")
    hooks.__dict__["build_wheel"] = print
    monkeypatch.setitem(sys.modules, "scikit_build_core", types.ModuleType("scikit_build_core"))
    monkeypatch.setitem(sys.modules, "scikit_build_core.build", hooks)
    assert runpy.run_path(str(backend))["build_wheel"] is print  # a 64-bit Python gets the hooks
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    with pytest.raises(SystemExit, match=r"needs a 64-bit system.* install the 64-bit Raspberry Pi OS"):
        runpy.run_path(str(backend))


@pytest.mark.skipif(not (REPOSITORY / "CMakeLists.txt").exists(), reason="needs a checkout")
def test_the_version_stands_in_one_file() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in settings["project"]
    assert settings["project"]["dynamic"] == ["version"]
    source = REPOSITORY / settings["tool"]["scikit-build"]["metadata"]["version"]["input"]
    assert source.read_text(encoding="utf-8").count(f'__version__ = "{sabiyarn_edge.__version__}"') == 1
    assert importlib.metadata.version("sabiyarn-edge") == sabiyarn_edge.__version__


def test_wheels_are_built_for_every_python_that_is_promised() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    settings = tomllib.loads(text)
    prefix = "Programming Language :: Python :: "
    versions = [
        line.removeprefix(prefix) for line in settings["project"]["classifiers"] if line.startswith(prefix)
    ]
    assert settings["tool"]["cibuildwheel"]["build"] == [f"cp{v.replace('.', '')}-*" for v in versions]
    newest = int(versions[-1].removeprefix("3."))
    assert settings["project"]["requires-python"] == f">={versions[0]},<3.{newest + 1}"


def test_the_package_without_nano_is_below_3_mb() -> None:
    package = Path(sabiyarn_edge.__file__).parent
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    code = [path for path in files if "nano" not in path.relative_to(package).parts and path.suffix != ".so"]
    compressed = sum(len(zlib.compress(path.read_bytes())) for path in [*code, *modules()])
    assert compressed < 3_000_000, f"{compressed} bytes"  # a wheel is a zip file: deflated


def test_no_test_left_a_session_in_the_checkout() -> None:
    """Their names would be the wrong paths of a table: "12", "None"."""
    files = [path for path in REPOSITORY.iterdir() if path.is_file()]
    assert [path.name for path in files if path.read_bytes().startswith(MAGIC)] == []


def modules() -> list[Path]:
    """The compiled ones; an editable install keeps them elsewhere."""
    return [Path(module.__file__) for module in (_core, _decode)]
