"""Runs a command that the kernel kills at its first socket, whichever process or thread of it opens one.

    python tests/campaigns/no_sockets.py [--but-local] COMMAND [ARGUMENT ...]

With --but-local, Unix sockets are allowed: they lead nowhere but to services of this machine, and looking up a user's
name or home folder opens one (glibc asks nscd).

A seccomp filter: it needs no rights and no tools, and outlives exec. It refuses io_uring too, by which sockets can be
opened without the system call. Source: seccomp(2), bpf(4) in the Linux manual pages.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

KILLED = -signal.SIGSYS if sys.platform == "linux" else None
"""The return code of a process that opened a socket."""

# Machine: its AUDIT_ARCH, and the numbers of socket and io_uring_setup.
_SYSTEM_CALLS = {"x86_64": (0xC000003E, (41, 425)), "aarch64": (0xC00000B7, (198, 425))}

_LOAD, _JUMP_IF_EQUAL, _RETURN = (
    0x20,
    0x15,
    0x06,
)  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16  # in struct seccomp_data
_AF_UNIX = 1
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2


def why_unavailable() -> str:
    """Why processes cannot be watched here; "" if they can."""
    if sys.platform != "linux" or platform.machine() not in _SYSTEM_CALLS:
        return f"seccomp filters are written for Linux on x86-64 and ARM here, not for {platform.platform()}"
    done = run_without_sockets([sys.executable, "-c", ""])
    return f"the kernel takes no seccomp filter ({done.stderr.strip()})" if done.returncode else ""


def run_without_sockets(
    command: Sequence[str | os.PathLike[str]],
    *,
    but_local: bool = False,
    env: Mapping[str, str] | None = None,
    given: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its return code is KILLED if it opened a socket (any, or any `but_local` ones).

    Args:
        given: what its standard input holds.
    """
    options = ["--but-local"] if but_local else []
    return subprocess.run(
        [sys.executable, __file__, *options, *map(os.fspath, command)],
        env=env,
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )


def install_filter(*, but_local: bool) -> None:
    """Put this process and all that it starts under the filter, for good.

    Raises:
        OSError: the kernel does not take it.
    """
    architecture, (open_socket, set_up_io_uring) = _SYSTEM_CALLS[platform.machine()]
    instructions = [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),  # 32-bit system calls have other numbers
        (_LOAD, 0, 0, _NUMBER_OFFSET),
    ]
    for number in (set_up_io_uring, *(() if but_local else (open_socket,))):
        instructions += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _KILL_PROCESS)]
    if but_local:
        instructions += [
            (_JUMP_IF_EQUAL, 0, 3, open_socket),
            (_LOAD, 0, 0, _FIRST_ARGUMENT_OFFSET),  # its lower half: both machines are little endian
            (_JUMP_IF_EQUAL, 1, 0, _AF_UNIX),
            (_RETURN, 0, 0, _KILL_PROCESS),
        ]
    instructions.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
    program = _Program(len(instructions), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


if __name__ == "__main__":
    local = sys.argv[1] == "--but-local"
    try:
        install_filter(but_local=local)
    except OSError as error:
        sys.exit(f"{error.strerror}")
    command_line = sys.argv[2:] if local else sys.argv[1:]
    os.execv(command_line[0], command_line)
