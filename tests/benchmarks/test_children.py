"""Children of the benchmarks: questions, answers, and what is heard of one that fails."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

children = pytest.importorskip("benchmarks.children", reason="needs a checkout")
Child, ChildFailed = children.Child, children.ChildFailed

CHILD = """
import json, os, signal, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "sleep":
        time.sleep(60)
    if request["do"] == "fail":
        raise ValueError("no such thing")
    if request["do"] == "crash":
        os.kill(os.getpid(), signal.SIGILL)
    print(json.dumps({"twice": 2 * request["number"], "cpu": time.process_time()}), flush=True)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_child.py").write_text(CHILD, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_child"


def is_stopped(child: Child) -> bool:
    """Whether its process is, or soon will be, in state T of proc(5)."""
    file = Path(f"/proc/{child._process.pid}/stat")
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if file.read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "T":
            return True
        time.sleep(0.01)
    return False


def test_a_child_answers_and_stands_still_between_turns(module: str) -> None:
    child = Child(module, [])
    assert child.hello == {"ready": True}
    assert child.ask(do="double", number=21)["twice"] == 42
    assert is_stopped(child)
    assert child.ask(do="double", number=4)["twice"] == 8
    child.close()


def test_a_child_that_fails_says_why(module: str) -> None:
    child = Child(module, [])
    with pytest.raises(ChildFailed, match="ValueError: no such thing"):
        child.ask(do="fail")


def test_a_child_that_crashes_says_by_which_signal(module: str) -> None:
    child = Child(module, [])
    with pytest.raises(ChildFailed, match="ended by SIGILL"):
        child.ask(do="crash")


def test_a_child_that_does_not_start_says_why() -> None:
    with pytest.raises(ChildFailed, match="No module named"):
        Child("no_such_module_here", [])


def test_a_child_that_takes_too_long_is_ended(module: str) -> None:
    child = Child(module, [], patience=5)
    with pytest.raises(ChildFailed, match="no answer within 5 s"):
        child.ask(do="sleep")
