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


def interrupted(command: list[str], *delays: float, ready: bytes = b"") -> tuple[int, str]:
    """Exit code and standard error of a process that gets SIGINT after each delay, seconds, from `ready` on."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(len(ready)) == ready
    for delay in delays:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    return process.returncode, err.decode()


# What the installed script does. Before its import ends, SIGINT does what Python has it do.
SCRIPT = "import sys; from sabiyarn_edge.cli import main; print(end='.', flush=True); sys.exit(main())"
STARTED = [sys.executable, "-c", SCRIPT]
DELAYS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0]


def test_next_to_nothing_is_imported_before_ctrl_c_is_handled():
    code = "import sys; from sabiyarn_edge.cli import main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = done.stdout.split()
    assert {name for name in loaded if name.startswith("sabiyarn_edge.")} == {
        "sabiyarn_edge.cli",
        "sabiyarn_edge.system",
        "sabiyarn_edge.system.interrupts",
        "sabiyarn_edge.system.telemetry",
    }
    assert not {"typing", "pathlib", "argparse"} & set(loaded)


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("command", ["batch", "generate"])
def test_ctrl_c_leaves_no_traceback_while_the_program_starts(text_model, tmp_path, command, delay):
    arguments = ["generate", "--model", text_model, "--max-new-tokens", "1000000", "--overflow", "slide", "a"]
    if command == "batch":  # which waits for lines on standard input
        arguments = ["batch", "--model", text_model, "-", tmp_path / "out.jsonl"]
    code, err = interrupted([*STARTED, *map(str, arguments)], delay, ready=b".")
    assert "Traceback" not in err
    assert "Error" not in err
    assert code in (130, -signal.SIGINT)


# Modules that are interrupted while they are imported; compiled ones say so in their own way.
INTERRUPTED_IMPORTS = {
    "python": "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(60)",
    "hidden": (
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    for _ in range(10**6): pass\n"
        "except BaseException:\n    raise ImportError('initialization failed')"
    ),
}


@pytest.mark.parametrize("kind", INTERRUPTED_IMPORTS)
@pytest.mark.parametrize("module", ["sabiyarn_edge.cli.commands", "onnxruntime"], ids=["first", "late"])
def test_ctrl_c_within_an_import_ends_the_process(tmp_path, text_model, kind, module):
    (tmp_path / "broken.py").write_text(INTERRUPTED_IMPORTS[kind])
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from importlib.abc import MetaPathFinder\n"
        "from importlib.util import spec_from_file_location\n"
        "class Finder(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}:\n"
        f"            return spec_from_file_location(name, {str(tmp_path / 'broken.py')!r})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from sabiyarn_edge.cli import main\n"
        "sys.exit(main())"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "generate",
        "--model",
        str(text_model),
        "--max-new-tokens",
        "2",
        "a",
    ]
    assert interrupted(command) == (-signal.SIGINT, "")


def test_a_second_ctrl_c_while_the_process_exits_leaves_no_traceback():
    slow_exit = (
        "import atexit, sys, time\n"
        "from sabiyarn_edge.cli import main\n"
        "@atexit.register\n"
        "def slow():\n"
        "    print(end='\\0', flush=True)\n"
        "    time.sleep(60)\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", slow_exit, "plan", "nano"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.stdout.read(1) != b"\0":
        pass
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=60)[1], process.returncode) == (b"", -signal.SIGINT)


def test_a_finalizer_hides_no_ctrl_c(tmp_path):
    code = (
        "import os, signal, sys, time\n"
        "from sabiyarn_edge.system.interrupts import run_program\n"
        "class Finalized:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(60)\n"
        "def run():\n"
        "    Finalized()\n"
        "    return 5\n"
        "sys.exit(run_program(run))"
    )
    assert interrupted([sys.executable, "-c", code]) == (-signal.SIGINT, "")


def test_an_ignored_sigint_stays_ignored(tmp_path):
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from sabiyarn_edge.system.interrupts import run_program\n"
        "code = run_program(lambda: os.kill(os.getpid(), signal.SIGINT) or 5)\n"
        "sys.exit(code if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else 9)"
    )
    assert interrupted([sys.executable, "-c", code]) == (5, "")


def test_in_a_program_of_ones_own_sigint_is_left_alone(run):
    before = signal.getsignal(signal.SIGINT)
    assert run("info", "nano").code == 0
    assert signal.getsignal(signal.SIGINT) is before
