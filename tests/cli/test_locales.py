"""Arguments in locales that are not UTF-8, paths that are not, and streams that are closed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sabiyarn_edge.generator import find_model

PROMPT, CONTINUED = "<yor> Gbogbo ènìyàn ni a", " bí ní"
NO_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Python then takes arguments for ASCII."""


def run(*arguments: str | bytes, **options: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **NO_LOCALE}
    command = [sys.executable, "-m", "sabiyarn_edge", *(os.fsencode(word) for word in arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, env=environment, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(params=["mùx".encode(), b"m\xffx"], ids=["utf-8", "0xff"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    path = os.fsencode(tmp_path) + b"/" + request.param
    try:
        shutil.copytree(os.fsencode(find_model("nano")), path)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    return path


def test_a_model_in_a_folder_of_any_name(folder: bytes) -> None:
    ran = run("generate", "--quiet", "--max-new-tokens", "40", "--stop", " ní", "--model", folder, PROMPT)
    assert ran.stderr == b""
    assert ran.stdout.decode() == " bí\n"  # prompt and stop string were read as UTF-8


def test_an_option_is_read_as_utf8() -> None:
    option = 'stop_strings=[" ní"]'
    ran = run("generate", "--quiet", "--max-new-tokens", "40", "--option", option, PROMPT)
    assert (ran.stderr, ran.stdout.decode()) == (b"", " bí\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "-"),
        ("embed", "-"),
        ("translate", "--to", "yor", "--lines"),
        ("generate", "-"),
        ("chat", "nano"),
    ],
)
def test_standard_input_may_be_closed(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments, preexec_fn=lambda: os.close(0))
    assert ran.returncode == 2
    assert ran.stderr.startswith(b"sabiyarn-edge: error: ")
    assert ran.stderr.count(b"\n") == 1


def test_doctor_tries_the_software() -> None:
    ran = run("doctor", "nano")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"gives the text that it has learnt" in ran.stdout


def test_a_session_that_cannot_be_saved_is_noticed_before_the_text(tmp_path: Path) -> None:
    ran = run("generate", "--quiet", "--session", str(tmp_path / "nothing" / "x"), PROMPT)
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert b"is no folder that can be written to" in ran.stderr
