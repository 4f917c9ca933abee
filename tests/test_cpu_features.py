"""What tells one kind of CPU from another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sabiyarn_edge.cpu_features import describe_cpu, lacks_dot_products, lacks_vnni, why_unsuited

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


def test_which_cpus_lack_dot_products() -> None:
    pi_4 = RASPBERRY_PI_4.format(index=0, bogomips=108.0)
    assert lacks_dot_products(pi_4)
    assert not lacks_dot_products(pi_4.replace("asimd", "asimd asimdhp asimddp"))
    assert lacks_dot_products(pi_4 + pi_4.replace("asimd", "asimd asimddp"))  # the slower cores decide
    assert not lacks_dot_products(X86.format(mhz=2000))
    assert not lacks_dot_products("")


def test_which_cpus_lack_vnni() -> None:
    flags = X86.format(mhz=2000).replace("fpu", "fpu sse2")
    assert not lacks_vnni(flags)
    assert not lacks_vnni(flags.replace("avx512_vnni", "avx_vnni"))
    assert lacks_vnni(flags.replace("avx512_vnni", ""))
    assert not lacks_vnni(RASPBERRY_PI_4.format(index=0, bogomips=108.0))
    assert not lacks_vnni("")


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_blocks_are_slow_without_dot_products(tmp_path: Path, dtype: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(RASPBERRY_PI_4.format(index=0, bogomips=108.0))
    assert f"{dtype} weights" in why_unsuited(dtype, cpuinfo)
    assert "--dtype int8-per-channel" in why_unsuited(dtype, cpuinfo)
    assert not why_unsuited("int8-per-channel", cpuinfo)
    assert not why_unsuited("float32", cpuinfo)
    cpuinfo.write_text(X86.format(mhz=2000))
    assert not why_unsuited(dtype, cpuinfo)
    assert not why_unsuited(dtype, tmp_path / "missing")


def test_channels_are_inexact_without_vnni(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu sse2 avx2\n")
    assert "--dtype int8." in why_unsuited("int8-per-channel", cpuinfo)
    assert not why_unsuited("int8", cpuinfo)
    assert not why_unsuited("float32", cpuinfo)
