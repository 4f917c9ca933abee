"""Models for which there is no memory are refused before anything is loaded, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import OutOfMemoryError, SabiYarnError
from sabiyarn_edge.planning import memory_plan
from sabiyarn_edge.planning.memory_plan import MIB, check_room, plan_memory
from sabiyarn_edge.system.available_memory import AvailableMemory

NANO = Path(memory_plan.__file__).parents[1] / "models" / "nano"


@pytest.fixture
def needed() -> int:
    """Bytes that loading nano takes."""
    return plan_memory(NANO, max_length=2, prompt_length=1).peak


def machine(root: Path, available: int, swap: int = 0) -> Path:
    """A machine with so many bytes to give, and so many of swap, rounded up to KiB."""
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "meminfo").write_text(
        f"MemTotal: 900000 kB\nMemAvailable: {-(-available // 1024)} kB\n"
        f"SwapTotal: 900000 kB\nSwapFree: {-(-swap // 1024)} kB\n"
    )
    return root


def group(root: Path, limit: int, used: int) -> Path:
    """The same machine in a control group."""
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(str(limit))
    (folder / "memory.current").write_text(str(used))
    return root


def test_enough(tmp_path: Path, needed: int) -> None:
    check_room(NANO, root=machine(tmp_path, needed))
    check_room(NANO, root=machine(tmp_path, needed // 2, needed // 2 + 1))  # with swap
    check_room(NANO, root=group(machine(tmp_path, needed), 2 * needed, needed))


def test_what_the_system_does_not_tell_is_no_reason(tmp_path: Path) -> None:
    check_room(NANO, root=tmp_path)


def test_too_little(tmp_path: Path, needed: int) -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        check_room(NANO, root=machine(tmp_path, 3 * MIB))
    for part in (f"takes {needed / MIB:.1f} MiB", "can take 3.0 more", "plan", "memory_limit_mb"):
        assert part in str(caught.value)
    assert isinstance(caught.value, SabiYarnError) and isinstance(caught.value, MemoryError)


def test_too_little_in_a_group(tmp_path: Path, needed: int) -> None:
    root = group(machine(tmp_path, 100 * needed), 64 * MIB, 60 * MIB)
    with pytest.raises(OutOfMemoryError, match=r"can take 4.0 more \(its control group's limit is 64\)"):
        check_room(NANO, root=root)


def test_a_generator_is_refused_unless_it_has_a_number_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = AvailableMemory.read(machine(tmp_path, MIB))
    monkeypatch.setattr(AvailableMemory, "read", classmethod(lambda cls, root: poor))
    with pytest.raises(OutOfMemoryError):
        EdgeGenerator.from_pretrained("nano")
    EdgeGenerator.from_pretrained("nano", memory_limit_mb=500)
