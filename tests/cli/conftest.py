"""A tiny model for the command line, and two ways to run it: in this process and as a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sabiyarn_edge.cli import main

VOCAB_SIZE, BLOCK_SIZE = 320, 96
"""Of the fixture text_model."""


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on standard error of a command that failed."""
        assert self.code != 0
        assert "Traceback" not in self.err
        [line] = self.err.strip().splitlines()
        assert line.startswith("sabiyarn-edge: error: ")
        return line.removeprefix("sabiyarn-edge: error: ")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """run("generate", ...) in this process."""

    def run(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def run_process() -> Callable[..., Ran]:
    """run_process("generate", ...) as `python -m sabiyarn_edge`."""

    def run(*arguments: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "sabiyarn_edge", *map(os.fspath, arguments)],
            input=stdin,
            capture_output=True,
            env={**os.environ, **(env or {})},
            timeout=120,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def model(text_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model for tests that damage it."""
    return Path(shutil.copytree(text_model, tmp_path / "model"))
