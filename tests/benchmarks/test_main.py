"""python -m benchmarks NAME: what goes wrong is one line, not a traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

main = pytest.importorskip("benchmarks.__main__", reason="needs a checkout").main


def error_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    assert main() == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("name", ["overflow", "threads"])  # one that runs by itself, and one with children
def test_a_model_that_is_not_there(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(monkeypatch, capsys, name, "--model", "absent")
    assert error.startswith("error: absent is not a folder.") and error.count("\n") == 1


def test_a_package_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "benchmarks.pictures", raising=False)
    error = error_of(monkeypatch, capsys, "publish", "--png", str(tmp_path))
    assert error == 'error: the package matplotlib is not installed. Run: pip install -e ".[benchmarks]"\n'
