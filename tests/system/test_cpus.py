"""CPUs that a process may keep busy: affinity, and quotas of both versions of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sabiyarn_edge.system.control_groups import control_groups
from sabiyarn_edge.system.cpus import usable_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def test_without_control_groups_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 8


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", 8),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("100000 0", 8),
        ("nonsense", 8),
        ("", 8),
    ],
)
def test_a_containers_quota_bounds_the_cpus(tmp_path: Path, quota: str, cpus: int) -> None:
    write(tmp_path / "sys/fs/cgroup/cpu.max", quota + "\n")
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", 8), ("300000", 3), ("250000", 3), ("10000", 1)])
@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_version_1_has_two_files(tmp_path: Path, folder: str, quota: str, cpus: int) -> None:
    write(tmp_path / f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us", quota)
    write(tmp_path / f"sys/fs/cgroup/{folder}/cpu.cfs_period_us", "100000")
    assert usable_cpus(tmp_path) == cpus


def test_the_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/system.slice/ours.service\n")
    groups = tmp_path / "sys/fs/cgroup"
    write(groups / "cpu.max", "max 100000")
    write(groups / "system.slice/cpu.max", "400000 100000")
    assert usable_cpus(tmp_path) == 4
    write(groups / "system.slice/ours.service/cpu.max", "200000 100000")
    assert usable_cpus(tmp_path) == 2
    write(groups / "system.slice/other.service/cpu.max", "100000 100000")
    assert usable_cpus(tmp_path) == 2


def test_a_group_of_version_1_is_found_by_its_controller(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "5:memory:/other\n3:cpu,cpuacct:/ours\n")
    for name, quota in (("ours", "200000"), ("other", "100000")):
        write(tmp_path / f"sys/fs/cgroup/cpu,cpuacct/{name}/cpu.cfs_quota_us", quota)
        write(tmp_path / f"sys/fs/cgroup/cpu,cpuacct/{name}/cpu.cfs_period_us", "100000")
    assert usable_cpus(tmp_path) == 2


def test_both_versions_at_once(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "3:cpuset:/\n0::/ours\n")
    (tmp_path / "sys/fs/cgroup/cpuset").mkdir(parents=True)
    write(tmp_path / "sys/fs/cgroup/unified/ours/cpu.max", "200000 100000")
    assert usable_cpus(tmp_path) == 2
    names = [group.name for group in control_groups(tmp_path, "cpu")]
    assert names == ["cgroup", "unified", "ours"]  # cpuset is another controller


def test_a_path_of_the_host_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/../../docker/0123\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "300000 100000")
    assert usable_cpus(tmp_path) == 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets affinity")
def test_affinity_of_a_real_process() -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "from sabiyarn_edge.system.cpus import usable_cpus; print(usable_cpus())"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "1"
