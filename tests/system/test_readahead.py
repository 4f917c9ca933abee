"""Files are read ahead where they are not cached and fit into memory; mincore(2) says what is cached."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path

import pytest

from sabiyarn_edge.system import readahead
from sabiyarn_edge.system.readahead import read_ahead
from tests.device import EMULATED

asks_what_is_cached = pytest.mark.skipif(EMULATED, reason="the emulator does not hand RWF_NOWAIT on")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")

SIZE = 8 * 2**20 + 123


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def drop(path: Path) -> None:
    """Take a file out of the page cache; skips where the file system keeps it."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)
    if cached(path) > 0.1:
        pytest.skip("the file system keeps its files in memory")


def cached(path: Path) -> float:
    """The share of a file's pages that are in memory."""
    size = path.stat().st_size
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), size) as mapped:
        pages = -(-size // mmap.PAGESIZE)
        found = (ctypes.c_ubyte * pages)()
        first = ctypes.c_char.from_buffer(mapped)
        assert ctypes.CDLL(None).mincore(ctypes.byref(first), ctypes.c_size_t(size), found) == 0
        del first
    return sum(page & 1 for page in found) / pages


@asks_what_is_cached
def test_a_file_that_is_not_cached_is_read(file: Path) -> None:
    drop(file)
    thread = read_ahead(file)
    assert thread is not None
    thread.join()
    for _ in range(200):  # asked for is not yet read
        if cached(file) == 1:
            return
        os.sched_yield()
        with file.open("rb") as opened:  # waits for a page that is under way
            opened.seek(SIZE - 1)
            opened.read(1)
    # One piece more than the kernel reads on at the end of the file by itself.
    assert cached(file) > 0.9


def test_a_file_that_is_cached_is_left_alone(file: Path) -> None:
    file.read_bytes()
    assert read_ahead(file) is None


def test_what_does_not_fit_is_not_read(file: Path, tmp_path: Path) -> None:
    drop(file)
    assert read_ahead(file, at_most=SIZE - 1) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9000 kB\nMemAvailable: {SIZE // 1024 - 1} kB\n")
    assert read_ahead(file, root=tmp_path) is None
    (tmp_path / "proc/meminfo").write_text("nothing\n")
    assert read_ahead(file, root=tmp_path) is None
    assert cached(file) <= 0.1


@asks_what_is_cached
def test_nothing_waits_and_nothing_fails(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_ahead(tmp_path / "missing") is None
    assert read_ahead(tmp_path) is None
    os.mkfifo(tmp_path / "pipe")
    assert read_ahead(tmp_path / "pipe") is None
    empty = tmp_path / "empty"
    empty.touch()
    assert read_ahead(empty) is None
    drop(file)

    def refuses(*arguments: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(readahead.os, "posix_fadvise", refuses)
    thread = read_ahead(file)
    assert thread is not None
    thread.join()
    monkeypatch.delattr(readahead.os, "RWF_NOWAIT")
    assert read_ahead(file) is None
