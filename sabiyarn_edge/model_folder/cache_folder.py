"""The folder where this package keeps what it can make again, and the lock that keeps two makers apart."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from ..errors import InvalidInputError

__all__ = ["ENVIRONMENT_VARIABLE", "cache_folder", "disk_bytes", "locked"]

ENVIRONMENT_VARIABLE = "SABIYARN_EDGE_CACHE"
"""Names the cache folder; "off" turns caching off."""


def cache_folder() -> Path | None:
    """The cache folder, made if needed: SABIYARN_EDGE_CACHE, else $XDG_CACHE_HOME/sabiyarn_edge, else
    ~/.cache/sabiyarn_edge; None if the variable says "off".

    Source: XDG Base Directory Specification 0.8 (a relative XDG_CACHE_HOME is ignored).

    Raises:
        InvalidInputError: SABIYARN_EDGE_CACHE names a folder that others could put files into.
        OSError: it cannot be made, or the default folder is one that others could put files into.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if named.lower() == "off":
        return None
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        if named:
            folder = Path(named).expanduser().absolute()
        elif base.is_absolute():
            folder = base / "sabiyarn_edge"
        else:
            folder = Path.home() / ".cache" / "sabiyarn_edge"
    except RuntimeError as error:  # ~ of nobody; or no HOME, and the user is in no password file
        raise OSError(str(error)) from error
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    distrusted = why_not_trusted(folder)
    if distrusted:
        if named:
            raise InvalidInputError(
                f"{ENVIRONMENT_VARIABLE} is {named}, {distrusted}. Name a folder of your own, or unset it."
            )
        raise PermissionError(f"{folder} is a folder {distrusted}")
    return folder


def why_not_trusted(path: Path) -> str:
    """Why a model found there may be another's work: "" if only this user and root can write to it.

    A model that somebody else left there would be run as ours.
    """
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        return f"which belongs to user id {found.st_uid} (we run as {os.geteuid()})"
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        return f"which every user may write to (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


def disk_bytes(*folders: Path) -> int:
    """Bytes of the files in the folders and below; those of a file with several names count once."""
    found = [path.stat() for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sum({(status.st_dev, status.st_ino): status.st_size for status in found}.values())


@contextmanager
def locked(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold the lock file `path` against other processes and threads; it is made if needed, and stays.

    The system frees the lock when its holder ends, however it ends.

    Raises:
        TimeoutError: another held it for `timeout` seconds.
        OSError: the file cannot be made, or the filesystem has no locks.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                flock(file, LOCK_EX | LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has held {path} for {timeout:.0f} s") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(file)
