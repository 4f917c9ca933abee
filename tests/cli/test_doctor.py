"""sabiyarn-edge doctor: its report, its exit codes, and that it works where nothing else does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sabiyarn_edge.doctor import Finding


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What the doctor will find."""
    found = [Finding("board", "ok", "Pi"), Finding("memory", "warning", "little", "Buy more.", {"total": 1})]
    monkeypatch.setattr("sabiyarn_edge.doctor.examine", lambda system, model: iter(found))
    return found


def test_warnings_are_no_failure(run, findings):
    ran = run("doctor")
    assert ran.code == 0
    assert ran.out.splitlines() == ["ok       board: Pi", "warning  memory: little", "         -> Buy more."]


def test_problems_are(run, findings):
    findings.append(Finding("onnxruntime", "problem", "gone", "Install it."))
    ran = run("doctor")
    assert ran.code == 1
    assert ran.out.endswith("problem  onnxruntime: gone\n         -> Install it.\n")
    assert ran.err == ""


def test_json(run, findings):
    report = json.loads(run("doctor", "--json").out)
    assert report["sound"] is True
    assert report["findings"][1] == {
        "name": "memory",
        "status": "warning",
        "text": "little",
        "remedy": "Buy more.",
        "facts": {"total": 1},
    }


def test_here(run_process):
    ran = run_process("doctor", "nano", "--json")
    report = json.loads(ran.out)
    assert report["sound"] == (ran.code == 0) is True
    names = [finding["name"] for finding in report["findings"]]
    assert names[0] == "board"
    assert names[-2:] == ["telemetry", "model"]


def test_it_works_where_nothing_else_does():
    """Without numpy, onnxruntime, tokenizers and the compiled modules."""
    lost = ["numpy", "onnxruntime", "tokenizers", "sabiyarn_edge._core", "sabiyarn_edge.engine._decode"]
    lose = f"import sys; sys.modules.update(dict.fromkeys({lost}))"
    code = (
        f"{lose}; from sabiyarn_edge.doctor import System; from sabiyarn_edge import doctor;"
        f"broken = System(prelude={lose!r});"
        "doctor.System = lambda: broken;"
        "from sabiyarn_edge.cli import main; sys.exit(main(['doctor', 'nano']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert done.stderr == ""
    for name in ("numpy", "tokenizers", "compiled core", "onnxruntime", "model"):
        assert f"problem  {name}: " in done.stdout
    assert "ok       system: " in done.stdout
