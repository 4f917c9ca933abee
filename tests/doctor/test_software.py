"""Libraries that are missing, old, broken, or crash: tried for real, in a process with such modules before the real."""

from __future__ import annotations

import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge._core import linear_kernels
from sabiyarn_edge.doctor import software
from sabiyarn_edge.doctor.finding import Finding
from sabiyarn_edge.doctor.software import MIN_ONNXRUNTIME, examine_software, examine_telemetry
from sabiyarn_edge.doctor.system import System
from sabiyarn_edge.engine.operators import ISA_VARIABLE
from sabiyarn_edge.system import telemetry
from tests.doctor.boards import board

CRASH = "import os, signal; os.kill(os.getpid(), signal.{})"


def examine(tmp_path: Path, modules: dict[str, str], prelude: str = "", **options: Any) -> dict[str, Finding]:
    """Findings by their names, where `modules` stand before the real ones."""
    for name, code in modules.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code), encoding="utf-8")
    prelude = f"sys.path.insert(0, {str(tmp_path)!r})\n{prelude}"
    found = examine_software(board(tmp_path, prelude=prelude, **options))
    return {finding.name: finding for finding in found}


def problems(findings: dict[str, Finding]) -> list[str]:
    return [name for name, finding in findings.items() if finding.status == "problem"]


def test_all_is_well_here() -> None:
    found = {finding.name: finding for finding in examine_software(System())}
    assert list(found) == ["numpy", "tokenizers", "compiled core", "onnxruntime", "generation"]
    assert problems(found) == []


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_an_onnxruntime_with_instructions_that_the_cpu_lacks(tmp_path: Path) -> None:
    found = examine(tmp_path, {"onnxruntime": CRASH.format("SIGILL")})
    assert problems(found) == ["onnxruntime"]
    assert found["onnxruntime"].text == "onnxruntime was killed by SIGILL"
    assert "pip install onnxruntime==" in found["onnxruntime"].remedy
    assert found["compiled core"].status == "ok"  # what can be tried is tried


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_each_that_crashes_is_found(tmp_path: Path) -> None:
    modules = {"numpy": CRASH.format("SIGILL"), "onnxruntime": CRASH.format("SIGKILL")}
    found = examine(tmp_path, modules, "sys.modules['sabiyarn_edge._core'] = None")
    assert problems(found) == ["numpy", "compiled core", "onnxruntime"]
    assert "memory" in found["onnxruntime"].remedy
    assert "pip install numpy" in found["numpy"].remedy


def test_an_onnxruntime_that_is_missing(tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')"
    found = examine(tmp_path, {"onnxruntime": missing})
    assert problems(found) == ["onnxruntime"]
    assert "No module named" in found["onnxruntime"].text
    assert found["onnxruntime"].remedy == "pip install onnxruntime"


def test_an_onnxruntime_that_is_too_old(tmp_path: Path) -> None:
    found = examine(tmp_path, {"onnxruntime": "__version__ = '1.9.1'"})
    assert found["onnxruntime"].text == "1.9.1; at least 1.30 is needed"


def test_an_onnxruntime_that_computes_nothing(tmp_path: Path) -> None:
    found = examine(tmp_path, {"onnxruntime": "__version__ = '1.32.0'"})
    assert problems(found) == ["generation"]
    assert "onnxruntime" in found["generation"].text


FORBIDDEN = """
import os, signal
from sabiyarn_edge.engine import decoder
if os.environ.get("SABIYARN_EDGE_ISA") not in {allowed}:
    decoder.Decoder.__init__ = lambda *_, **__: os.kill(os.getpid(), signal.SIGILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.skipif(len(linear_kernels()) < 2, reason="this CPU has no set above the plain one")
@pytest.mark.parametrize("allowed", [["plain"], []])
def test_an_instruction_set_that_the_system_forbids(tmp_path: Path, allowed: list[str]) -> None:
    found = examine(tmp_path, {}, FORBIDDEN.format(allowed=allowed))
    assert problems(found) == ["generation"]
    remedy = found["generation"].remedy
    if allowed:
        assert remedy == (
            f"The system forbids {linear_kernels()[0]}, which this CPU says it has. Set SABIYARN_EDGE_ISA=plain."
        )
    else:
        assert remedy.startswith("This CPU lacks an instruction that it was compiled for. Try")


def test_an_instruction_set_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "avx1024")
    found = examine(tmp_path, {})
    assert problems(found) == ["generation"]
    assert "avx1024" in found["generation"].text
    assert found["generation"].remedy == f"unset {ISA_VARIABLE}"


def test_a_compiled_core_that_is_missing(tmp_path: Path) -> None:
    found = examine(tmp_path, {}, "sys.modules['sabiyarn_edge._core'] = None")
    assert problems(found) == ["compiled core"]
    assert "--force-reinstall" in found["compiled core"].remedy


def test_a_library_that_hangs(tmp_path: Path) -> None:
    found = examine(tmp_path, {"tokenizers": "import time; time.sleep(60)"}, seconds=3.0)
    assert found["tokenizers"].text == "tokenizers did not end in 3 s"


def test_a_library_that_prints(tmp_path: Path) -> None:
    found = examine(tmp_path, {"tokenizers": "print('{} [1] hello'); __version__ = '0.99'"})
    assert found["tokenizers"].text == "0.99"


def test_a_python_that_does_not_start(tmp_path: Path) -> None:
    found = examine(tmp_path, {}, python=str(tmp_path / "none"))
    assert problems(found) == ["numpy", "tokenizers", "compiled core", "onnxruntime"]
    # Python 3.13 starts programs with posix_spawn, whose failures qemu's user mode cannot report.
    assert "cannot be started" in found["numpy"].text or "exit code 127" in found["numpy"].text


def test_the_current_folder_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('not mine')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert problems({finding.name: finding for finding in examine_software(System())}) == []


def test_the_variable_is_that_of_the_operators() -> None:
    assert software.ISA_VARIABLE == ISA_VARIABLE


def test_the_least_onnxruntime_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    least = ".".join(map(str, MIN_ONNXRUNTIME))
    assert f"onnxruntime>={least}" in project["project"]["dependencies"]


def test_telemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_came_late", False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    assert examine_telemetry().status == "ok"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert examine_telemetry().status == "warning"
    assert "'0'" in examine_telemetry().text
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    device_id = tmp_path / "Microsoft" / "DeveloperTools" / ".onnxruntime" / "deviceid"
    device_id.parent.mkdir(parents=True)
    device_id.touch()
    found = examine_telemetry()
    assert (found.status, found.remedy) == (
        "ok",
        "",
    )  # nothing that this package does, or its user could mend
    assert str(device_id) in found.text


def test_a_frozen_program_starts_itself_no_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    [finding] = examine_software(System(root=tmp_path, python=str(tmp_path / "none")))
    assert (finding.name, finding.status) == ("libraries", "ok")
