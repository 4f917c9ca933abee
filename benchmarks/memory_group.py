"""A control group that limits the memory of its processes, page cache included, as a board of that size would.

Works with both kinds of control groups (v2, and v1 with its memory controller); making one takes root.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryGroup:
    """A group's folder and the names of its files, which differ between the two kinds."""

    folder: Path
    limit_file: str
    peak_file: str
    swap_file: str

    def run(self, command: Sequence[str | os.PathLike[str]]) -> subprocess.CompletedProcess[str]:
        """Run a command in the group."""
        enter = ["sh", "-c", f'echo $$ > "{self.folder}/cgroup.procs" && exec "$@"', "sh"]
        return subprocess.run([*enter, *map(os.fspath, command)], capture_output=True, text=True)

    @property
    def peak_bytes(self) -> int:
        """Return the peak of the group in bytes: memory of its processes, and of the files that they read."""
        return int((self.folder / self.peak_file).read_text(encoding="ascii"))

    @property
    def times_full(self) -> int:
        """Return how often the group hit its limit, so that pages had to be dropped."""
        if self.limit_file == "memory.max":
            return self._event("memory.events", "max")
        return int((self.folder / "memory.failcnt").read_text(encoding="ascii"))

    @property
    def killed(self) -> int:
        """Return the number of processes that were killed because no page could be dropped."""
        file = "memory.events" if self.limit_file == "memory.max" else "memory.oom_control"
        return self._event(file, "oom_kill")

    def _event(self, file: str, name: str) -> int:
        lines = (self.folder / file).read_text(encoding="ascii").splitlines()
        return int(dict(line.split() for line in lines)[name])


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Make a new group under a limit, without swap, and remove it when the block ends.

    Raises:
        OSError: the group cannot be made.
    """
    name = f"sabiyarn-edge-{os.getpid()}-{time.monotonic_ns()}"
    if (_V1 / "memory.limit_in_bytes").exists():
        group = MemoryGroup(
            _V1 / name, "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.memsw.limit_in_bytes"
        )
    else:
        group = MemoryGroup(_V2 / name, "memory.max", "memory.peak", "memory.swap.max")
    group.folder.mkdir()
    try:
        (group.folder / group.limit_file).write_text(str(limit_bytes), encoding="ascii")
        if _has_swap() and (group.folder / group.swap_file).exists():
            no_swap = 0 if group.limit_file == "memory.max" else limit_bytes
            (group.folder / group.swap_file).write_text(str(no_swap), encoding="ascii")
        yield group
    finally:
        group.folder.rmdir()


def _has_swap() -> bool:
    return len(Path("/proc/swaps").read_text(encoding="ascii").splitlines()) > 1
