"""docs/server.md and deploy/: what they tell people to run."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import SECONDS, Server, running

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "docs" / "server.md"
UNIT = REPOSITORY / "deploy" / "sabiyarn-edge.service"

pytestmark = pytest.mark.skipif(not DOCUMENT.is_file(), reason="documents are in the repository only")


def blocks(language: str) -> list[str]:
    text = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.is_file() else ""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def nano() -> Iterator[Server]:
    server = Server("--port", "0")
    with running(server):
        yield server


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_python(nano: Server, index: int) -> None:
    code = blocks("python")[index].replace("http://127.0.0.1:8080", nano.url)
    [module] = re.findall(r"^(?:import|from) (\w+)", code)
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"there is no {module} here: pip install {module}")
    assert run([sys.executable, "-c", code]).strip()


@pytest.mark.parametrize("index", range(len(blocks("bash"))))
def test_curl(nano: Server, index: int) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    answer = run(["bash", "-c", blocks("bash")[index].replace("http://127.0.0.1:8080", nano.url)])
    assert '"object":"' in answer and '"error"' not in answer


def test_the_answer_that_is_shown(nano: Server) -> None:
    [shown] = map(json.loads, blocks("json"))
    body = {"text": "Everyone has the right to life, liberty and the security of person.", "to": "yor"}
    assert shown.items() <= nano.post("/v1/tasks/translate", json=body).json().items()


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    file = tmp_path / UNIT.name
    text = re.sub(
        "^ExecStart=.*$", "ExecStart=/bin/true", UNIT.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


def test_every_variable_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    from sabiyarn_edge.cli import main

    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    for file in (DOCUMENT, UNIT, REPOSITORY / "deploy" / "Dockerfile"):
        for name in re.findall(r"SABIYARN_EDGE_([A-Z_]+)\b", file.read_text(encoding="utf-8")):
            assert f"--{name.lower().replace('_', '-')}" in flags, f"{file.name}: {name}"
