"""Child processes that run one at a time.

A child answers JSON lines. Between answers it is stopped (SIGSTOP): the threads of an engine that waits take no CPU
time from the engine that is measured. Memory and CPU seconds belong to one engine, because its process is its own.
"""

from __future__ import annotations

import ctypes
import json
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

__all__ = ["Child", "ChildFailed"]


class ChildFailed(Exception):
    """A child ended, or reported an error."""


class Child:
    """A process that runs `python -m MODULE ARGUMENTS...`: greets with one JSON line, and answers each with one."""

    def __init__(self, module: str, arguments: Sequence[str], patience: float | None = None) -> None:
        """
        Args:
            patience: seconds that an answer may take; None: any time.
        """
        self._patience = patience
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            preexec_fn=_die_with_parent,
        )
        self.hello = self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Let the child run until it has answered one request."""
        assert self._process.stdin
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Let the child end."""
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], self._patience)[0]:
            self._process.kill()
            self._process.communicate()
            self._errors.close()
            raise ChildFailed(f"no answer within {self._patience:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            with suppress(BrokenPipeError):  # what it was not able to read
                self._process.communicate()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:]
            self._errors.close()
            raise ChildFailed("; ".join([*last, *_killed(self._process.returncode)]))
        self._process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        return answer


def _killed(code: int | None) -> list[str]:
    """How a process ended, where a signal did it, as an instruction does that the system forbids (SIGILL)."""
    if code is None or code >= 0:
        return [] if code else ["ended without an answer"]
    return [f"ended by {signal.Signals(-code).name}"]


def _die_with_parent() -> None:
    """Have the system end this process when the benchmark is killed: a stopped child cannot see that by itself."""
    set_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
