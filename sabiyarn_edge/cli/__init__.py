"""The command line: `sabiyarn-edge COMMAND`, one file for each command.

Imports next to nothing: what it imports before main() runs, Ctrl-C breaks off with a traceback.
"""

from __future__ import annotations

import sys

from ..system.interrupts import run_program

TYPE_CHECKING = False  # true for type checkers
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments after the program's name; None: those of this process, whose whole program this is: SIGINT then
            has its default action when it returns. See `run_program`.

    Returns:
        The exit code (see `EPILOG` of commands.py).
    """
    if argv is not None:
        return _run(argv)
    return run_program(lambda: _run(sys.argv[1:]))


def _run(argv: Sequence[str]) -> int:
    from .commands import run

    return run(argv)
