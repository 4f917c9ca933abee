"""Files and folders that are complete or as they were before, also after `kill -9` and after the power went.

Each is filled under a name of its own beside its place, `.NAME.xxxxxxxx.partial`, brought to the disk (fsync), and then
renamed. Whoever fills one holds the system's lock (flock) on it, which ends with the process however that ends: so the
next writer knows the leftovers of the dead, and removes them.

    source: "ext4 and data loss" (T. Ts'o, 2009) for write, fsync, rename, fsync the folder; rename(2), flock(2)
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_file", "atomic_files", "atomic_folder", "new_link", "remove_leftovers", "sync"]

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>partial|old)", re.DOTALL)
_ANYWHERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE, linux/fs.h


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write that takes `path`'s place when the block ends, and vanishes when the block fails.

    Args:
        mode: who may read and write it, less the process's umask.

    Raises:
        OSError: it cannot be written; what was at `path` is still there.
    """
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
    """A folder to fill that takes `path`'s place when the block ends, and vanishes when the block fails.

    What was at `path` is deleted after that. On Linux the two are exchanged in one step, where the filesystem can
    (ext4, XFS, btrfs, tmpfs; not FAT): at no time is there none. Elsewhere the old one is moved aside first, and comes
    back with the next `atomic_folder` or `remove_leftovers` if the process is killed in between.

    Raises:
        OSError: it cannot be written; what was at `path` is still there.
    """
    with _scratch_folder(path) as partial:
        yield partial
        _sync_all(partial)
        _put_in_place(partial, path)


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """A folder to fill with files that move into `folder`, which exists, when the block ends.

    Each of them is complete or as it was before. A process that is killed while they move leaves some new and some old.

    Raises:
        OSError: they cannot be written.
    """
    with _scratch_folder(folder / "files") as partial:
        yield partial
        _sync_all(partial)
        for file in sorted(partial.iterdir()):
            file.replace(folder / file.name)
    sync(folder)


def new_link(path: Path, target: Path) -> None:
    """Make `path` another name of the file `target` (a hard link), in the place of what was there.

    Raises:
        OSError: there cannot be one; what was at `path` is still there.
    """
    remove_leftovers(path.parent, path.name)
    partial = _partial_of(path)
    try:
        partial.hardlink_to(target)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # also where both were one file already: then nothing was renamed
    sync(path.parent)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what writers that were killed left in `folder`, of the file or folder `name` or of all.

    Those of live processes stay, and all of them where the filesystem has no locks.
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
    """Bring a file's bytes, or a folder's entries, to the disk."""
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
    """A locked folder beside `path`; what stands under its name when the block ends or fails is deleted."""
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


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _open(path: Path) -> int | None:
    """A descriptor to lock; None where there can be none (a symbolic link, another's file)."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None


def _lock(descriptor: int, path: Path) -> bool:
    """Lock what was just made, as far as the filesystem can; False if a remover came between, so that it is gone."""
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
    """Let two names swap what they stand for, in one step; False where the system or the filesystem cannot."""
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
    """Remove a file or a folder, if it is there, as far as that is allowed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
