"""Atomic writes of files and folders: complete or as they were before, also after `kill -9` and a power cut.

A writer fills a temporary name beside the target, `.NAME.xxxxxxxx.partial`, calls fsync, and renames it. It holds a
lock (flock) on the temporary name, which the system releases however the process ends. So the next writer recognizes
leftovers of killed writers and removes them.

A symbolic link stays: what it points at is replaced. Devices, pipes and sockets are refused: a rename would put a file
in their place. So are a folder in place of a file, and a file in place of a folder.

Source: "ext4 and data loss" (T. Ts'o, 2009) for write, fsync, rename, fsync the folder; rename(2), flock(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import BinaryIO

from .regular_file import check_regular_file

__all__ = ["atomic_file", "atomic_files", "atomic_folder", "remove_leftovers", "sync"]

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>partial|old)", re.DOTALL)
_ANYWHERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE, linux/fs.h


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` when the block ends, and is deleted when the block raises.

    Args:
        mode: permission bits of the new file, before the process's umask.

    Raises:
        OSError: the file cannot be written, or `path` is something else than a file; it is unchanged.
    """
    path = _file_to_replace(path)
    remove_leftovers(path.parent, path.name)
    while True:
        partial = _partial_of(path)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        if _lock(descriptor, partial):
            break
        os.close(descriptor)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)  # while it is locked
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a new folder that replaces `path` when the block ends, and is deleted when the block raises.

    The old folder is deleted afterwards. On Linux the two are exchanged in one step if the filesystem can (ext4, XFS,
    btrfs, tmpfs; not FAT). Elsewhere the old folder is moved aside first. If the process is killed in between, the next
    `atomic_folder` or `remove_leftovers` moves it back.

    Raises:
        OSError: the folder cannot be written, or `path` is something else than a folder; it is unchanged.
    """
    path = _behind_link(path)
    if os.path.lexists(path) and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is there, and is no folder", str(path))
    with _scratch_folder(path) as partial:
        yield partial
        _sync_all(partial)
        _put_in_place(partial, path)


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """Make a folder whose files move into the existing `folder` when the block ends.

    Each file is complete or as it was before. A process that is killed while they move leaves some new, some old.

    Raises:
        OSError: the files cannot be written, or `folder` has something else than a file of such a name; then nothing
            has moved.
    """
    with _scratch_folder(folder / "files") as partial:
        yield partial
        _sync_all(partial)
        targets = {file: _file_to_replace(folder / file.name) for file in sorted(partial.iterdir())}
        for file, target in targets.items():
            if target.parent == folder:
                file.replace(target)
            else:  # behind a link, perhaps on another filesystem
                with (
                    file.open("rb") as source,
                    atomic_file(target, mode=stat.S_IMODE(file.stat().st_mode)) as copy,
                ):
                    shutil.copyfileobj(source, copy)
    sync(folder)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the leftovers of killed writers from `folder`: those of the target `name`, or all.

    Temporary names of live writers stay. If the filesystem has no locks, all stay.
    """
    try:
        found = [(entry, match) for entry in folder.iterdir() if (match := _LEFTOVER.fullmatch(entry.name))]
    except OSError:
        return  # no folder, so nothing in it
    for entry, match in found:
        if name is not None and match["name"] != name:
            continue
        descriptor = _open(entry)
        if descriptor is None:
            continue
        try:
            if _try_to_lock(descriptor):
                target = folder / match["name"]
                if match["kind"] == "old" and not os.path.lexists(target):
                    entry.rename(target)  # its replacement never came
                else:
                    _remove(entry)
        except OSError:
            continue  # another remover was faster
        finally:
            os.close(descriptor)


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network filesystems
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _scratch_folder(path: Path) -> Iterator[Path]:
    """Make a locked folder beside `path`. Whatever has its name when the block ends or raises is deleted."""
    remove_leftovers(path.parent, path.name)
    while True:
        partial = _partial_of(path)
        partial.mkdir()
        descriptor = _open(partial)
        if descriptor is None or _lock(descriptor, partial):
            break
        os.close(descriptor)
    try:
        yield partial
    finally:
        _remove(partial)
        if descriptor is not None:
            os.close(descriptor)


def _file_to_replace(path: Path) -> Path:
    """The path of the file itself: `path`, or what a symbolic link there points at, whether it exists or not.

    Raises:
        OSError: something else than a file is there, or the link leads nowhere.
    """
    with suppress(FileNotFoundError):
        check_regular_file(path)
    return _behind_link(path)


def _behind_link(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _open(path: Path) -> int | None:
    """Open a descriptor to lock; None if that is not possible (a symbolic link, another user's file)."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None


def _lock(descriptor: int, path: Path) -> bool:
    """Lock a new file if the filesystem has locks. Returns False if another process has removed it meanwhile."""
    with suppress(OSError):
        flock(descriptor, LOCK_EX)
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _try_to_lock(descriptor: int) -> bool:
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except OSError:
        return False
    return True


def _sync_all(folder: Path) -> None:
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def _put_in_place(partial: Path, path: Path) -> None:
    if not os.path.lexists(path):
        partial.rename(path)
    elif not _exchange(partial, path):
        _replace_in_two_steps(partial, path)
    sync(path.parent)


def _replace_in_two_steps(partial: Path, path: Path) -> None:
    aside = partial.with_suffix(".old")
    descriptor = _open(path)
    if descriptor is not None:
        _try_to_lock(descriptor)
    try:
        path.rename(aside)
        try:
            partial.rename(path)
        except BaseException:
            aside.rename(path)
            raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
    sync(path.parent)
    _remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step. Returns False if the system or the filesystem cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # not Linux, or a C library without it
        return False
    if renameat2(_ANYWHERE, os.fsencode(one), _ANYWHERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _remove(path: Path) -> None:
    """Remove a file or a folder if it exists and permissions allow it."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
