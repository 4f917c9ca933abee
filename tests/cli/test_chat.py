"""sabiyarn-edge chat, against the Python API."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator
from tests.cli.conftest import Ran

pytest.importorskip("jinja2")


def answers(chat_folder: Path, *turns: str, system: str = "", **options: object) -> list[str]:
    with EdgeGenerator.from_pretrained(chat_folder, num_threads=1) as generator:
        session = generator.chat_session([{"role": "system", "content": system}] if system else [])
        return [session.send(turn, **options).content for turn in turns]


def test_piped_lines_are_answered(chat_folder: Path, run_process: Callable[..., Ran]) -> None:
    ran = run_process(
        *("chat", chat_folder, "--max-new-tokens", "9", "--system", "kúkúrú", "--threads", "1"),
        stdin="ọmọ\n\nilé\n/tokens\n//x\n".encode(),
        env={"LC_ALL": "C", "PYTHONUTF8": "0"},
    )
    expected = answers(chat_folder, "ọmọ", "ilé", "/x", system="kúkúrú", max_new_tokens=9)
    assert (ran.code, ran.out) == (0, "".join(f"{answer}\n" for answer in expected))
    assert " of 2048 tokens" in ran.err
    assert ran.err.count("the answer was cut") == 3


def test_commands(chat_folder: Path, run_process: Callable[..., Ran], tmp_path: Path) -> None:
    lines = f"""/help
ọmọ
/save {tmp_path}/chat
ilé
/reset
ilé
/load {tmp_path}/chat
ilé
/system kúkúrú
/reset
ilé
/quit
never read
"""
    arguments = (
        "chat",
        chat_folder,
        "--max-new-tokens",
        "9",
        "--temperature",
        "1",
        "--seed",
        "3",
        "--threads",
        "1",
    )
    ran = run_process(*arguments, stdin=lines.encode())
    options = {"max_new_tokens": 9, "do_sample": True, "temperature": 1.0, "seed": 3}
    first, second = answers(chat_folder, "ọmọ", "ilé", **options)
    (alone,) = answers(chat_folder, "ilé", **options)
    (with_system,) = answers(chat_folder, "ilé", system="kúkúrú", **options)
    assert ran.code == 0, ran.err
    expected = [first, second, alone, second, with_system]
    assert ran.out == "".join(f"{answer}\n" for answer in expected)
    for told in ("/help          this list", "2 messages saved", "2 messages loaded; "):
        assert told in ran.err
    loaded = run_process(*arguments, "--load", tmp_path / "chat", stdin="ilé".encode())
    assert loaded.out == f"{second}\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ((), "/fly\n", "there is no command /fly; the commands are /help, /system"),
        ((), "/save\n", "a file is missing"),
        ((), "/load missing\n", "cannot read missing"),
        ((), b"\xff\n", "line 1 of standard input is not UTF-8"),
        (("--system", "a", "--load", "b"), "", "leave out --system"),
        (("--option", "max_tokens=3"), "", "unknown option max_tokens"),
        (("--seed", "1", "--option", "seed=2"), "", "seed is given twice"),
    ],
)
def test_mistakes(
    chat_folder: Path,
    run: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    stdin: str | bytes,
    message: str,
) -> None:
    typed = io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(typed))
    assert message in run("chat", chat_folder, *arguments).error


def test_a_model_without_a_template(text_model: Path, run: Callable[..., Ran]) -> None:
    ran = run("chat", text_model)
    assert ran.code == 2
    assert "messages need a chat template, but the model" in ran.error


def test_info_tells_of_the_template(chat_folder: Path, text_model: Path, run: Callable[..., Ran]) -> None:
    for model, expected in ((chat_folder, True), (text_model, False)):
        assert json.loads(run("info", model, "--json").out)["chat"] == expected
    assert "none (no chat template)" in run("info", text_model).out


class Terminal:
    """The command at a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self._own, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sabiyarn_edge", "chat", *arguments],
            **{"stdin": theirs, "stdout": theirs, "stderr": theirs},
            start_new_session=True,
            env={**os.environ, "TERM": "dumb"},
        )
        os.close(theirs)
        self.shown = b""

    def type(self, text: str) -> None:
        os.write(self._own, text.encode())

    def has(self, text: str, behind: str = "") -> bool:
        return text.encode() in self.shown[self.shown.rfind(behind.encode()) if behind else 0 :]

    def read(self, seconds: float) -> None:
        if select.select([self._own], [], [], seconds)[0]:
            self.shown += os.read(self._own, 4096)

    def has_soon(self, text: str, behind: str = "", seconds: float = 60) -> bool:
        end = time.monotonic() + seconds
        while not self.has(text, behind) and time.monotonic() < end:
            self.read(0.1)
        return self.has(text, behind)

    def wait_for(self, text: str, behind: str = "") -> None:
        assert self.has_soon(text, behind), self.shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._own)


def test_ctrl_c_stops_an_answer_and_ctrl_d_the_program(chat_folder: Path) -> None:
    endless = ("--max-new-tokens", "100000000", "--overflow", "slide", "--option", "eos_token_id=none")
    terminal = Terminal(str(chat_folder), "--threads", "1", *endless)
    try:
        terminal.wait_for("> ")
        terminal.type("a\n")
        terminal.wait_for("> a\r\n")
        before = len(terminal.shown)
        while len(terminal.shown) == before:
            terminal.read(60)
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("stopped")
        terminal.type("/nothing\n")
        terminal.wait_for("there is no command /nothing")
        terminal.wait_for("> ", behind="typed with //.")
        terminal.type("half a line")
        terminal.wait_for("half a line")
        terminal.process.send_signal(signal.SIGINT)  # drops it
        while not terminal.has_soon("> ", behind="half a line", seconds=5):
            terminal.process.send_signal(signal.SIGINT)  # Python's input() may miss one that comes with a key
        terminal.type("/tokens\n")
        terminal.wait_for("> ", behind=" of 2048 tokens")  # before it, the terminal may swallow Ctrl-D
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()
    assert b"Traceback" not in terminal.shown
