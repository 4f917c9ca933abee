"""Freezes a program with PyInstaller, and runs it from another folder without the Python that it was made with.

    python -m tests.campaigns.frozen [--one-file]

Builds a wheel of this checkout and installs it, with PyInstaller, in an environment of its own, which is gone when the
program runs. What it prints must be what this Python prints. Exits with 1 otherwise. Needs what builds the package, and
a package registry.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from sabiyarn_edge.cli import main
sys.exit(main())
"""
TEXT = "<yor> Gbogbo ènìyàn ni a"
SCHEMA = '{"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}'
COMMANDS: dict[str, Sequence[str]] = {
    "generate": ("generate", "--quiet", "--max-new-tokens", "24", TEXT),
    "translate": ("translate", "--to", "yor", "Everyone has the right to education."),
    "structured output": ("generate", "--quiet", "--option", f"json_schema={SCHEMA}", TEXT),
    "tasks": ("tasks", "nano"),
    "doctor": ("doctor",),
    "help of the server": ("serve", "--help"),
}
COMPARED = ("generate", "translate", "structured output", "tasks")


def freeze(folder: Path, *, one_file: bool) -> Path:
    """Make the program; its environment is removed. Returns the executable."""
    environment, wheels = folder / "environment", folder / "wheels"
    run(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", f"-w{wheels}", str(ROOT))
    (wheel,) = wheels.glob("*.whl")
    run(sys.executable, "-m", "venv", str(environment))
    python = str(environment / "bin/python")
    run(python, "-m", "pip", "install", "pyinstaller", f"sabiyarn-edge[serve,json] @ {wheel.as_uri()}")
    program = folder / "hello.py"
    program.write_text(PROGRAM, encoding="utf-8")
    kind = "--onefile" if one_file else "--onedir"
    run(python, "-m", "PyInstaller", "--noconfirm", kind, str(program), cwd=folder)
    shutil.move(folder / "dist/hello", folder / "moved")
    shutil.rmtree(environment)
    return folder / "moved" if one_file else folder / "moved/hello"


def run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=cwd)


def said(command: Sequence[str], folder: Path, variables: dict[str, str]) -> tuple[int, str]:
    """The exit code, and what was printed."""
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.frozen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--one-file", action="store_true")
    arguments = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        program = freeze(folder, one_file=arguments.one_file)
        bare = {"PATH": os.defpath, "HOME": str(folder), "LANG": "C.UTF-8", "TMPDIR": temporary}
        for name, command in COMMANDS.items():
            code, printed = said([str(program), *command], folder, bare)
            expected = printed
            if name in COMPARED:
                _, expected = said([sys.executable, "-m", "sabiyarn_edge", *command], ROOT, dict(os.environ))
            fits = code == 0 and printed == expected
            good = good and fits
            print(f"{'ok' if fits else 'WRONG':<8}{name}" + ("" if fits else f": {code} {printed[-500:]}"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
