"""Boards by their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sabiyarn_edge.doctor.board import examine_board, examine_cpu, examine_width
from tests.doctor.boards import PI_4, PI_5, board


def test_a_board_is_called_as_its_device_tree_calls_it(tmp_path: Path) -> None:
    assert examine_board(board(tmp_path)).text == "Raspberry Pi 4 Model B Rev 1.4"


def test_a_server_is_called_as_its_firmware_calls_it(tmp_path: Path) -> None:
    files = {"sys/class/dmi/id/sys_vendor": "ACME\n", "sys/class/dmi/id/product_name": "Server 3\n"}
    assert examine_board(board(tmp_path, files)).text == "ACME Server 3"


def test_no_name(tmp_path: Path) -> None:
    found = examine_board(board(tmp_path, {}))
    assert (found.status, found.facts["board"]) == ("ok", None)


@pytest.mark.parametrize("machine", ["aarch64", "x86_64", "arm64"])
def test_64_bits(tmp_path: Path, machine: str) -> None:
    assert examine_width(board(tmp_path, machine=machine)).status == "ok"


@pytest.mark.parametrize(
    ("machine", "bits", "words"),
    [
        ("armv7l", 32, "armv7l, Python of 32 bits"),
        ("aarch64", 32, "a 32-bit Python on a 64-bit kernel (aarch64)"),
        ("i686", 32, "i686"),
        ("riscv64", 64, "riscv64"),
    ],
)
def test_other_systems_are_told_what_is_needed(tmp_path: Path, machine: str, bits: int, words: str) -> None:
    found = examine_width(board(tmp_path, machine=machine, python_bits=bits))
    assert found.status == "problem"
    assert words in found.text
    assert "64-bit" in found.remedy


def test_a_cpu_without_dot_products(tmp_path: Path) -> None:
    found = examine_cpu(board(tmp_path, PI_4))
    assert (found.status, found.text) == ("ok", "4 x Cortex-A72; asimd")
    assert found.facts == {"cores": ["Cortex-A72"] * 4, "features": ["asimd"]}


def test_a_cpu_with_dot_products(tmp_path: Path) -> None:
    found = examine_cpu(board(tmp_path, PI_5))
    assert (found.status, found.text) == ("ok", "4 x Cortex-A76; asimd asimddp asimdhp")


def test_two_kinds_of_core(tmp_path: Path) -> None:
    text = PI_5["proc/cpuinfo"].replace("0xd0b", "0xd05", 1).replace("0xd0b", "0xfff", 1)
    found = examine_cpu(board(tmp_path, {"proc/cpuinfo": text}))
    assert found.text.startswith("1 x Cortex-A55, 1 x Arm core 0xfff, 2 x Cortex-A76;")


def test_x86(tmp_path: Path) -> None:
    text = "model name\t: ACME 9\nflags\t\t: fpu avx2 sse2 f16c\n\n" * 2
    found = examine_cpu(board(tmp_path, {"proc/cpuinfo": text}, machine="x86_64"))
    assert (found.status, found.text) == ("ok", "2 x ACME 9; avx2 f16c")


def test_an_unknown_cpu(tmp_path: Path) -> None:
    assert examine_cpu(board(tmp_path, {})).text == "unknown CPU; no instruction sets known"
