"""What tells one kind of CPU from another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sabiyarn_edge.system.cpu_features import describe_cpu

RASPBERRY_PI_4 = """\
processor\t: {index}
BogoMIPS\t: {bogomips}
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9B14
cpu MHz\t\t: {mhz}
flags\t\t: fpu avx2 avx512_vnni
"""


@pytest.fixture
def described(tmp_path: Path) -> Callable[[str], str]:
    def describe(text: str) -> str:
        (tmp_path / "cpuinfo").write_text(text)
        return describe_cpu(tmp_path / "cpuinfo")

    return describe


def test_counts_and_clocks_do_not_matter(described: Callable[[str], str]) -> None:
    one = described(RASPBERRY_PI_4.format(index=0, bogomips=108.0))
    four = described("".join(RASPBERRY_PI_4.format(index=i, bogomips=100.0 + i) for i in range(4)))
    assert one == four
    assert "Features: asimd" in one
    assert described(X86.format(mhz=2000)) == described(X86.format(mhz=3500))


def test_instruction_sets_and_cores_matter(described: Callable[[str], str]) -> None:
    text = RASPBERRY_PI_4.format(index=0, bogomips=108.0)
    others = [text.replace("asimd", "asimd asimddp"), text.replace("0xd08", "0xd0b"), text + X86]
    assert len({described(other) for other in [text, *others]}) == 4


def test_without_cpuinfo_the_platform_tells(tmp_path: Path) -> None:
    assert describe_cpu(tmp_path / "missing")


def test_this_machine_is_described_the_same_every_time() -> None:
    assert describe_cpu() == describe_cpu() != ""
