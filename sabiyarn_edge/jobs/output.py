"""Output: a file that grows by records, and can be taken back to where it was at a checkpoint."""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path
from typing import IO

from ..errors import InvalidInputError
from ..system.regular_file import check_regular_file
from ..system.standard_output import output_errors_named
from .endings import is_packed

__all__ = ["Output", "check_is_file", "reason"]

_GZIP_LEVEL = 6
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's number for a gzip header, which has no time and no name in it


class Output:
    """Appends to a file ("-": standard output; an ending .gz: compressed, a member for each checkpoint).

    Attributes:
        name: for messages.
        is_stream: whether it is standard output, which nothing is taken back from.
        nbytes: of the file, at the last checkpoint.
        crc: CRC-32 of what was written, before compression, at the last checkpoint.

    Raises:
        InvalidInputError: the file cannot be opened for writing, or standard output is closed.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = "standard output" if str(path) == "-" else str(path)
        self.is_stream = str(path) == "-"
        self.nbytes = self.crc = 0
        self._packs = is_packed(path)
        self._waiting: list[bytes] = []
        self.waiting_bytes = 0
        """Written since the last checkpoint."""
        if self.is_stream:
            # Closed by the shell (>&-): None, or what the command line puts in its place.
            if sys.stdout is None or not sys.stdout.writable():
                raise InvalidInputError("standard output is closed. Give a file.")
            self._file: IO[bytes] = sys.stdout.buffer
            return
        check_is_file(path, "Give a file, or - for standard output.")
        try:
            # Through a link that leads nowhere, too.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            link = f" {path} is a link to {Path(path).readlink()}." if Path(path).is_symlink() else ""
            raise InvalidInputError(f"cannot write {path}: {reason(error)}.{link}") from error
        # Without a buffer, which would write again what a full disk refused.
        self._file = os.fdopen(descriptor, "r+b", buffering=0)

    @property
    def size(self) -> int:
        """Bytes of the file as it is."""
        return os.fstat(self._file.fileno()).st_size

    def rewind(self, nbytes: int, crc: int) -> None:
        """Forget what was written after a checkpoint."""
        self._forget_waiting()
        self.nbytes, self.crc = nbytes, crc
        if not self.is_stream:
            self._file.truncate(nbytes)
            self._file.seek(nbytes)

    def write(self, data: bytes) -> None:
        """Append. What is written to a file stays in memory until the next checkpoint.

        Raises:
            OSError: standard output cannot be written.
        """
        if self.is_stream:
            with output_errors_named():
                self._file.write(data)
                self._file.flush()
        else:
            self._waiting.append(data)
            self.waiting_bytes += len(data)

    def checkpoint(self) -> None:
        """Have all that was written on the disk.

        Raises:
            OSError: the disk is full, or gone; rewind() to the last checkpoint then.
        """
        if self.is_stream or not self._waiting:
            return
        data = b"".join(self._waiting)
        stored = data
        if self._packs:
            packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
            stored = packer.compress(data) + packer.flush()
        left = memoryview(stored)
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())
        self.nbytes += len(stored)
        self.crc = zlib.crc32(data, self.crc)
        self._forget_waiting()

    def overwrite(self, data: bytes) -> None:
        """Replace the file's first bytes."""
        os.pwrite(self._file.fileno(), data, 0)
        os.fsync(self._file.fileno())

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self.waiting_bytes = 0

    def close(self) -> None:
        """Close the file; what was not checkpointed is not written."""
        self._forget_waiting()
        if not self.is_stream:
            self._file.close()


def check_is_file(path: str | Path, remedy: str) -> None:
    """Refuse what cannot be taken back to a checkpoint, before anything is opened or written.

    Args:
        path: may not be there yet.
        remedy: what else to give.

    Raises:
        InvalidInputError: it is a folder, a pipe, a socket or a device.
    """
    try:
        check_regular_file(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {reason(error)}. {remedy}") from error


def reason(error: OSError) -> str:
    """Why the system refused something, without a number and names."""
    return error.strerror or str(error)
