from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from sabiyarn_edge.system.regular_file import check_regular_file, read_file_or_pipe, read_regular_file


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert check_regular_file(path) == 5
    assert read_regular_file(path, at_most=5) == b"12345"
    with pytest.raises(OSError, match="longer than") as caught:
        read_regular_file(path, at_most=4)
    assert caught.value.filename == str(path)


def test_what_is_no_file_is_neither_opened_nor_waited_for(tmp_path: Path) -> None:
    pipe, link, folder = tmp_path / "pipe", tmp_path / "link", tmp_path
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(tmp_path / "s"))
        for path, what in (
            (pipe, "a pipe"),
            (link, "a device"),
            (folder, "a folder"),
            (tmp_path / "s", "a socket"),
        ):
            for read in (check_regular_file, lambda found: read_regular_file(found, at_most=10)):
                with pytest.raises(OSError, match=what):
                    read(path)
    finally:
        listener.close()


def test_a_file_that_lies_about_its_size_is_bounded() -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("there is no /proc here")
    with pytest.raises(OSError, match="longer than"):
        read_regular_file("/proc/self/maps", at_most=10)  # its size is 0


def test_a_pipe_that_the_user_named_is_read_up_to_the_bound(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for content in (b"12345", b"123456"):
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        if len(content) == 5:
            assert read_file_or_pipe(pipe, at_most=5) == content
        else:
            with pytest.raises(OSError, match="longer than"):
                read_file_or_pipe(pipe, at_most=5)
        writer.join()
