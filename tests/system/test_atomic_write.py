"""Files and folders are complete or as before, whenever the writer dies; leftovers of the dead go, of the living stay.

Kills of the real writers, at random moments: see test_kills.py.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from sabiyarn_edge.system import atomic_write
from sabiyarn_edge.system.atomic_write import atomic_file, atomic_files, atomic_folder, remove_leftovers
from tests.crash_points import WRITERS


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("writer", WRITERS)
def test_killed_at_each_line(writer: str) -> None:
    memory = (
        "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    )  # hundreds of fsync, that wait for no disk
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        command = [sys.executable, "-m", "tests.crash_points", writer, folder]
        lines = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
    assert int(lines.stdout) > 10


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What goes to the disk and what is renamed, in order."""
    found: list[tuple[str, str]] = []
    sync, rename, replace, exchange = os.fsync, Path.rename, Path.replace, atomic_write._exchange

    def note_sync(descriptor: int) -> None:
        found.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        sync(descriptor)

    def noting(function: Callable[[Path, Path], object]) -> Callable[[Path, Path], object]:
        def note(one: Path, other: Path) -> object:
            found.append(("rename", one.name))
            return function(one, other)

        return note

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", noting(rename))
    monkeypatch.setattr(Path, "replace", noting(replace))
    monkeypatch.setattr(atomic_write, "_exchange", noting(exchange))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("existed", [False, True], ids=["new", "replaced"])
def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, events: list[tuple[str, str]], existed: bool
) -> None:
    """What a power cut needs that a kill does not show: the order of fsync and rename."""
    place = tmp_path / "place"
    place.mkdir()
    if existed:
        (place / "file").touch()
        (place / "folder").mkdir()
    with atomic_file(place / "file") as file:
        file.write(b"content")
    (_, partial), *_ = events
    assert events == [("sync", partial), ("rename", partial), ("sync", "place")]
    events.clear()

    with atomic_folder(place / "folder") as folder:
        (folder / "below").mkdir()
        (folder / "below" / "a").touch()
        (folder / "b").touch()
    expected = [("sync", "a"), ("sync", "below"), ("sync", "b"), ("sync", folder.name)]
    assert events == [*expected, ("rename", folder.name), ("sync", "place")]
    events.clear()

    with atomic_files(place) as scratch:
        (scratch / "c").touch()
    assert events == [("sync", "c"), ("sync", scratch.name), ("rename", "c"), ("sync", "place")]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A live writer of both kinds."""
    with ExitStack() as stack:
        stack.enter_context(atomic_file(path / "file"))
        stack.enter_context(atomic_folder(path / "folder"))
        stack.enter_context(atomic_files(path))
        yield


def test_a_live_writer_keeps_what_it_writes(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with writing(tmp_path):
        before = names(tmp_path)
        assert len(before) == 4
        remove_leftovers(tmp_path)
        assert names(tmp_path) == before
        with writing(tmp_path):  # another writer of the same
            assert set(before) < set(names(tmp_path))
    assert names(tmp_path) == ["file", "folder"]


def test_leftovers_of_other_names_are_left_alone_unless_all_are_asked_for(tmp_path: Path) -> None:
    for name in (
        ".file.0123abcd.partial",
        ".other.0123abcd.partial",
        ".file.txt",
        ".file.0123abcd.partial.txt",
    ):
        (tmp_path / name).touch()
    (tmp_path / ".folder.89abcdef.partial").mkdir()
    (tmp_path / ".folder.89abcdef.partial" / "inside").touch()
    with atomic_file(tmp_path / "file"):
        pass
    rest = [".file.0123abcd.partial.txt", ".file.txt", "file"]
    assert names(tmp_path) == sorted([*rest, ".other.0123abcd.partial", ".folder.89abcdef.partial"])
    remove_leftovers(tmp_path)
    assert names(tmp_path) == rest


def test_a_link_is_not_followed_to_what_it_points_at(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / ".folder.0123abcd.partial").symlink_to(tmp_path / "precious")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [
        ".folder.0123abcd.partial",
        "precious",
    ]  # no writer makes links: it is another's
    assert names(tmp_path / "precious") == ["file"]


def test_what_a_remover_took_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = atomic_write._lock, 0

    def after_a_remover(descriptor: int, path: Path) -> bool:
        nonlocal taken
        if (taken := taken + 1) in (1, 3):
            remove_leftovers(tmp_path)
            assert not path.exists()
        return lock(descriptor, path)

    monkeypatch.setattr(atomic_write, "_lock", after_a_remover)
    with atomic_file(tmp_path / "file") as file:
        file.write(b"content")
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "inside").touch()
    assert (taken, names(tmp_path), names(tmp_path / "folder")) == (4, ["file", "folder"], ["inside"])


@pytest.mark.parametrize(("number", "matters"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_filesystems_that_cannot_sync_folders_are_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, matters: bool
) -> None:
    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError) if matters else nullcontext(), atomic_file(tmp_path / "file") as file:
        file.write(b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("replaced", [True, False])
def test_an_old_folder_that_was_moved_aside(tmp_path: Path, replaced: bool) -> None:
    """Comes back if its replacement never came, and goes if it did."""
    (tmp_path / ".folder.0123abcd.old").mkdir()
    (tmp_path / ".folder.0123abcd.old" / "mark").touch()
    if replaced:
        (tmp_path / "folder").mkdir()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ([] if replaced else ["mark"])


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS], ids=["filesystem", "kernel"])
def test_without_exchange_there_are_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(atomic_write.ctypes, "get_errno", lambda: number)
    monkeypatch.setattr(atomic_write, "_EXCHANGE", 0x4000_0000)  # flags that no kernel knows
    for mark in ("old", "new"):
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / mark).touch()
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["new"]


def test_the_old_one_comes_back_when_the_new_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "old").touch()
    rename = Path.rename

    def fail_for_partial(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_partial)
    monkeypatch.setattr(atomic_write, "_exchange", lambda one, other: False)
    with pytest.raises(OSError, match="Input/output error"), atomic_folder(tmp_path / "folder") as folder:
        (folder / "new").touch()
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["old"]


def test_an_old_folder_is_not_brought_back_while_its_replacement_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    rename = Path.rename

    def with_another_writer(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            monkeypatch.setattr(Path, "rename", rename)
            assert not target.exists()
            remove_leftovers(tmp_path)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", with_another_writer)
    monkeypatch.setattr(atomic_write, "_exchange", lambda one, other: False)
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "new").touch()
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["new"]


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # the path of a socket has at most 107 bytes


def make_device(path: Path) -> None:
    """A node of its own with the numbers of /dev/full."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    except OSError:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "linked"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_folder, "it is a folder"),
        (os.mkfifo, "it is a pipe, not a file"),
        (make_socket, "it is a socket, not a file"),
        (make_device, "it is a device, not a file"),
    ],
    ids=["folder", "pipe", "socket", "device"],
)
def test_what_is_no_file_is_not_replaced_by_one(
    tmp_path: Path, make: Callable[[Path], None], message: str, linked: bool
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    made = tmp_path / "made" if linked else place / "name"
    make(made)
    if linked:
        (place / "name").symlink_to(made)
    before = made.lstat()
    with pytest.raises(OSError, match=message), atomic_file(place / "name"):
        pytest.fail("the block must not run")
    with pytest.raises(OSError, match=message), atomic_files(place) as scratch:
        for name in ("a", "name", "z"):
            (scratch / name).touch()
    assert names(place) == ["name"]  # nothing moved
    assert (place / "name").is_symlink() == linked
    assert (made.lstat().st_mode, made.lstat().st_ino) == (before.st_mode, before.st_ino)
    if make is not make_folder:
        with pytest.raises(NotADirectoryError, match="is no folder"), atomic_folder(place / "name"):
            pytest.fail("the block must not run")
        assert made.lstat().st_mode == before.st_mode


@pytest.mark.parametrize("existed", [True, False])
def test_behind_a_link_its_target_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    targets = tmp_path / "targets"
    targets.mkdir()
    (tmp_path / "file").symlink_to(Path("second"))
    (tmp_path / "second").symlink_to(Path("targets", "file"))
    (tmp_path / "folder").symlink_to(targets / "folder")
    if existed:
        (targets / "file").write_text("old")
        make_folder(targets / "folder")
    before = names(tmp_path)
    with atomic_file(Path("file")) as file:
        file.write(b"content")
    with atomic_folder(Path("folder")) as folder:
        (folder / "new").touch()
    assert ((targets / "file").read_text(), names(targets / "folder")) == ("content", ["new"])
    with atomic_files(tmp_path) as scratch:
        (scratch / "file").write_text("again")
    assert ((targets / "file").read_text(), (targets / "file").stat().st_mode & 0o077) == ("again", 0o044)
    assert (names(tmp_path), names(targets)) == (before, ["file", "folder"])
    assert all((tmp_path / name).is_symlink() for name in ("file", "second", "folder"))


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "lost").symlink_to(tmp_path / "no" / "such" / "folder")
    for name in ("loop", "lost"):
        with pytest.raises(OSError, match=r"Too many levels|No such file"), atomic_file(tmp_path / name):
            pytest.fail("the block must not run")
    assert names(tmp_path) == ["loop", "lost"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path, failure: type[BaseException]) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(failure), atomic_file(tmp_path / "file") as file:
        file.write(b"new")
        raise failure
    with pytest.raises(failure), atomic_files(tmp_path) as scratch:
        (scratch / "file").write_text("new")
        raise failure
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_modes(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        for mode, expected in ((0o666, 0o644), (0o600, 0o600)):
            with atomic_file(tmp_path / "file", mode=mode):
                pass
            assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected
    finally:
        os.umask(mask)
