"""Kills a writer at each of its lines in turn, and looks at what is there then and after the next write.

    python -m tests.crash_points WRITER FOLDER

WRITER is one of WRITERS. Each kill is a forked process that sends itself SIGKILL before the k-th line of
atomic_write.py. Prints the number of lines that were tried.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType
from typing import Any

from sabiyarn_edge.system import atomic_write

FILES = ("a", "b")


def write_file(place: Path, content: str) -> None:
    with atomic_write.atomic_file(place / "target") as file:
        for part in (content, "!"):
            file.write(part.encode())


def read_file(place: Path) -> set[str]:
    return {(place / "target").read_text()}


def write_folder(place: Path, content: str) -> None:
    with atomic_write.atomic_folder(place / "target") as folder:
        for name in FILES:
            (folder / name).write_text(content + "!")


def write_folder_in_two_steps(place: Path, content: str) -> None:
    atomic_write._exchange = lambda one, other: False
    write_folder(place, content)


def read_folder(place: Path) -> set[str]:
    return {(place / "target" / name).read_text() for name in FILES}


def read_folder_after_recovery(place: Path) -> set[str]:
    atomic_write.remove_leftovers(place)
    return read_folder(place)


def write_files(place: Path, content: str) -> None:
    with atomic_write.atomic_files(place) as folder:
        for name in FILES:
            (folder / name).write_text(content + "!")


def read_files(place: Path) -> set[str]:
    return {(place / name).read_text() for name in FILES}


WRITERS: dict[str, tuple[Callable[[Path, str], None], Callable[[Path], set[str]]]] = {
    "file": (write_file, read_file),
    "folder": (write_folder, read_folder),
    "folder-in-two-steps": (write_folder_in_two_steps, read_folder_after_recovery),
    "files": (write_files, read_files),
}


def killed_at(
    line: int,
    write: Callable[[], None],
    *,
    files: Collection[str] = (atomic_write.__file__,),
    functions: Collection[str] | None = None,
) -> bool:
    """Let a child write, killing itself before that line of the files' functions (None: all); False if it has fewer."""
    child = os.fork()
    if child == 0:
        left = line

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            if functions is not None and frame.f_code.co_name not in functions:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            write()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status != 0


def main(name: str, folder: Path) -> int:
    """Try every line; returns how many there are."""
    write, read = WRITERS[name]
    for line in itertools.count():
        place = folder / str(line)
        place.mkdir()
        write(place, "old")
        names = sorted(place.iterdir())
        killed = killed_at(line, lambda: write(place, "new"))  # noqa: B023 - called at once
        found = read(place)
        assert found == {"old!"} or found == {"new!"} or (name == "files" and found == {"old!", "new!"}), (
            found
        )
        assert killed or found == {"new!"}
        write(place, "newer")
        assert read(place) == {"newer!"}
        assert sorted(place.iterdir()) == names  # no leftover of either
        if not killed:
            return line
        shutil.rmtree(place)
    raise AssertionError


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2])))
