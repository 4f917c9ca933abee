"""The command line as a process of its own: what only the system can show."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "sabiyarn_edge"]
PROMPT = "Gbogbo ènìyàn"
LONG = ["generate", "--ids", "5 17 9", "--quiet", "--max-new-tokens", "60"]


def test_help_names_commands_and_exit_codes(run_process):
    ran = run_process("--help")
    assert (ran.code, ran.err) == (0, "")
    for word in ("generate", "export", "info", "exit codes:", "130"):
        assert word in ran.out


@pytest.mark.parametrize("command", ["generate", "export", "info"])
def test_each_command_has_help(run_process, command):
    ran = run_process(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: sabiyarn-edge {command}")


def test_version(run_process):
    import sabiyarn_edge

    assert run_process("--version").out == f"sabiyarn-edge {sabiyarn_edge.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["generat"], "invalid choice: 'generat'"),
        (["--xyzzy", "info", "nano"], "unknown option --xyzzy"),
    ],
)
def test_wrong_usage(run_process, arguments, message):
    ran = run_process(*arguments)
    assert ran.code == 2
    assert message in ran.error


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
@pytest.mark.parametrize("utf8_mode", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_letters_survive_any_locale(run_process, text_model, locale, utf8_mode):
    arguments = ("generate", "--model", text_model, "--max-new-tokens", "30", "--quiet")
    expected = run_process(*arguments, PROMPT, env={"PYTHONUTF8": "1"})
    assert not expected.out.isascii()
    env = {"LC_ALL": locale, **utf8_mode}
    assert run_process(*arguments, PROMPT, env=env) == expected
    assert run_process(*arguments, "-", stdin=PROMPT.encode() + b"\n", env=env) == expected


def test_standard_input_that_is_not_utf8(run_process, text_model):
    ran = run_process("generate", "--model", text_model, "-", stdin=b"ab\xe9cd")
    assert ran.code == 2
    assert "standard input is not UTF-8: byte 2 is 0xe9" in ran.error


def test_a_reader_that_leaves_is_no_error(text_model):
    process = subprocess.Popen(
        [*COMMAND, *LONG, "--model", str(text_model)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=120), err) == (0, b"")


WRITERS = [
    ["generate", "--ids", "5", "--quiet", "--max-new-tokens", "3"],
    ["batch", "-", "-", "--max-new-tokens", "3"],
    ["embed", "-"],
    ["score", "-"],
    ["translate", "--to", "yor", "--model", "nano", "hello"],
    ["info", "nano"],
    ["--help"],
    ["--version"],
]


def _words(command: list[str], model: Path) -> list[str]:
    has_model = command[0] in ("generate", "batch", "embed", "score")
    return [*command, *(["--model", str(model)] if has_model else [])]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [*((command, "") for command in WRITERS), (WRITERS[1], "1"), (["--help"], "1")],
)
def test_output_that_cannot_be_written_is_an_error(text_model, command, unbuffered):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *_words(command, text_model)],
            input=b"a b\n",
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            timeout=120,
        )
    *notes, error = done.stderr.decode().splitlines()
    assert all(line.startswith("sabiyarn-edge: note: ") for line in notes)
    assert error == "sabiyarn-edge: error: cannot write standard output: No space left on device."
    assert done.returncode == 1


@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
def test_a_closed_standard_output(text_model, command):
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join([*COMMAND, *_words(command, text_model)])} >&-"],
        input=b"a b\n",
        stderr=subprocess.PIPE,
        timeout=120,
    )
    *notes, error = done.stderr.decode().splitlines()
    assert all(line.startswith("sabiyarn-edge: note: ") for line in notes)
    assert error.startswith("sabiyarn-edge: error: standard output is closed. Give ")
    assert done.returncode == 2


def test_a_closed_standard_output_that_nothing_is_written_to(text_model, tmp_path):
    words = ["batch", "-", str(tmp_path / "out.jsonl"), "--quiet", "--model", str(text_model)]
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join([*COMMAND, *words, '--max-new-tokens', '3'])} >&-"],
        input=b"a b\n",
        stderr=subprocess.PIPE,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


def test_ctrl_c_exits_with_130_and_no_traceback(tmp_path):
    # A model that streams one token and then waits stands in for a slow one.
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, time\n"
        "import sabiyarn_edge.generator as g\n"
        "from sabiyarn_edge.options.generation_config import GenerationConfig\n"
        "from sabiyarn_edge.text.streaming import StreamedToken\n"
        "from sabiyarn_edge.cli import main\n"
        "class Slow:\n"
        "    generation_config = GenerationConfig()\n"
        "    tokenizer = None\n"
        "    def stream(self, *inputs): return self\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *exc): pass\n"
        "    def __iter__(self):\n"
        "        yield StreamedToken(text='begun', token_id=1, index=0)\n"
        "        time.sleep(60)\n"
        "g.EdgeGenerator.from_pretrained = lambda *a, **k: Slow()\n"
        "sys.exit(main(['generate', 'x']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.read(5) == "begun"  # flushed as it was produced
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "\n", "")
