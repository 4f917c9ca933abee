"""Memory of made-up boards and control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sabiyarn_edge.doctor.limits import examine_memory, examine_threads
from sabiyarn_edge.system.available_memory import AvailableMemory
from tests.doctor.boards import MIB, PI_4, board

SERVICE = {"proc/self/cgroup": "0::/system.slice/ours.service\n"}
GROUP = "sys/fs/cgroup/system.slice/ours.service"


def test_a_board_with_room(tmp_path: Path) -> None:
    found = examine_memory(board(tmp_path))
    assert (found.status, found.text) == ("ok", "1496 of 1845 MiB available, swap 200 MiB")
    assert found.facts["here"] == found.facts["available"] == 1532000 * 1024


def test_a_board_without_room(tmp_path: Path) -> None:
    files = {"proc/meminfo": "MemTotal: 430000 kB\nMemAvailable: 190000 kB\nSwapTotal: 0 kB\n"}
    found = examine_memory(board(tmp_path, files))
    assert found.status == "warning"
    assert "no swap" in found.text
    assert "End other programs" in found.remedy


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({f"{GROUP}/memory.max": "max\n", f"{GROUP}/memory.current": "1000\n"}, None),
        ({f"{GROUP}/memory.max": str(300 * MIB), f"{GROUP}/memory.current": str(100 * MIB)}, 200),
        (
            {
                f"{GROUP}/memory.max": str(300 * MIB),
                f"{GROUP}/memory.current": str(100 * MIB),
                f"{GROUP}/memory.stat": f"anon 5\ninactive_file {30 * MIB}\nactive_file {20 * MIB}\n",
            },
            250,  # pages of files go when they must
        ),
        (
            {
                "sys/fs/cgroup/system.slice/memory.max": str(120 * MIB),
                "sys/fs/cgroup/system.slice/memory.current": str(20 * MIB),
                f"{GROUP}/memory.max": str(300 * MIB),
                f"{GROUP}/memory.current": str(20 * MIB),
            },
            100,  # of the group around it
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/ours\n",
                "sys/fs/cgroup/memory/ours/memory.limit_in_bytes": str(64 * MIB),
                "sys/fs/cgroup/memory/ours/memory.usage_in_bytes": str(80 * MIB),
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "123",
            },
            0,
        ),
        (
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "123",
            },
            None,
        ),
        (
            {
                f"{GROUP}/memory.max": str(200 * MIB),
                f"{GROUP}/memory.current": str(100 * MIB),
                f"{GROUP}/memory.stat": f"inactive_file {130 * MIB}\n",  # counted at another moment
            },
            200,
        ),
        (
            {
                "sys/fs/cgroup/system.slice/memory.max": str(500 * MIB),
                "sys/fs/cgroup/system.slice/memory.current": str(470 * MIB),
                f"{GROUP}/memory.max": str(300 * MIB),
                f"{GROUP}/memory.current": str(100 * MIB),
            },
            30,  # the larger limit has less left
        ),
    ],
    ids=[
        *("no limit", "limit", "files", "outer group", "version 1"),
        *("version 1 without", "more files than usage", "least left"),
    ],
)
def test_control_groups(tmp_path: Path, files: dict[str, str], left: int | None) -> None:
    system = board(tmp_path, {**PI_4, **SERVICE, **files})
    found = examine_memory(system)
    if left is None:
        assert found.status == "ok"
        memory = AvailableMemory.read(tmp_path)
        assert (memory.here, memory.group_limit) == (1532000 * 1024, None)
    else:
        assert found.status == "warning"  # each of them is below 256 MiB
        assert f"{left} are left" in found.text
        assert "MemoryMax" in found.remedy
        assert AvailableMemory.read(tmp_path).here == left * MIB


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert examine_memory(board(tmp_path, {})).text == "the system does not tell"


def test_threads_follow_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    assert examine_threads(board(tmp_path)).facts == {"threads": 4}
    quota = {"sys/fs/cgroup/cpu.max": "150000 100000"}
    assert examine_threads(board(tmp_path, quota)).facts == {"threads": 2}
