"""Reads whole files, none without end; from folders that may come from anywhere, no pipe and no device either."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_regular_file", "read_file_or_pipe", "read_regular_file", "read_to_end"]

_PIECE_BYTES = 2**20

_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, "it is a folder"),
    (stat.S_ISFIFO, errno.EINVAL, "it is a pipe, not a file"),
    (stat.S_ISSOCK, errno.EINVAL, "it is a socket, not a file"),
    (stat.S_ISCHR, errno.EINVAL, "it is a device, not a file"),
    (stat.S_ISBLK, errno.EINVAL, "it is a device, not a file"),
)


def check_regular_file(path: str | Path) -> int:
    """Return the size of a file in bytes, without opening it: opening some devices has effects.

    Raises:
        OSError: there is no such file, or it is a folder, a pipe, a socket or a device; `strerror` says which.
    """
    found = Path(path).stat()
    for is_kind, number, text in _KINDS:
        if is_kind(found.st_mode):
            raise OSError(number, text, str(path))
    return found.st_size


def read_regular_file(path: str | Path, *, at_most: int) -> bytes:
    """Read a whole file.

    Args:
        at_most: bytes. A longer file is refused before memory is taken for it.

    Raises:
        OSError: as `check_regular_file`, or the file is longer than `at_most`, or cannot be read.
    """
    check_regular_file(path)
    # Not to wait for a writer, should the file have become a pipe meanwhile. Regular files do not mind.
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    )
    with os.fdopen(os.open(path, flags), "rb") as file:
        return read_to_end(file, str(path), at_most=at_most)


def read_file_or_pipe(path: str | Path, *, at_most: int) -> bytes:
    """Read what the user named: a shell makes pipes too (`--grammar <(...)`). Args, Raises: as `read_regular_file`."""
    with Path(path).open("rb") as file:
        return read_to_end(file, str(path), at_most=at_most)


def read_to_end(file: BinaryIO, name: str, *, at_most: int) -> bytes:
    """Read the rest of an open file. Raises: OSError: it is longer than `at_most` bytes, or cannot be read."""
    parts, left = [], at_most + 1
    # Piece by piece: the size may be a lie (files of /proc have none), and read(n) takes memory for all n first.
    while left > 0 and (part := file.read(min(left, _PIECE_BYTES))):
        parts.append(part)
        left -= len(part)
    if left == 0:
        raise OSError(errno.EFBIG, f"it is longer than {at_most / 2**20:g} MiB", name)
    return b"".join(parts)
