"""The compiled modules run on every CPU of their architecture, whatever the CPU they were built on."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from sabiyarn_edge import _core
from sabiyarn_edge.engine import _decode
from sabiyarn_edge.engine.operators import LIBRARY
from tests.disassembly import (
    AARCH64_NATIVE,
    DISPATCHED_SECTION,
    X86_64,
    Baseline,
    beyond,
    beyond_baseline,
    instructions,
)

BASELINES = {"x86_64": X86_64, "aarch64": AARCH64_NATIVE}
MACHINE = platform.machine()

pytestmark = [
    pytest.mark.skipif(MACHINE not in BASELINES, reason="disassembles ELF files of x86-64 and aarch64"),
    pytest.mark.skipif(not (shutil.which("objdump") and shutil.which("as")), reason="needs GNU binutils"),
]


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return BASELINES[MACHINE]


FILES = [Path(_core.__file__), Path(_decode.__file__), LIBRARY]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.split(".")[0])
def test_the_compiled_files_keep_to_the_baseline(file: Path, baseline: Baseline) -> None:
    assert beyond_baseline(file, baseline) == []


# What the dispatched functions are for: conversions to float16 and back, wide registers, dot products of bytes.
DISPATCHED = {
    "x86_64": {FILES[0]: ["%ymm"], LIBRARY: ["vcvtps2ph", "vpmaddubsw", "vpdpbusd", "vfmadd"]},
    "aarch64": {LIBRARY: ["sdot", "smmla"]},  # its baseline converts float16
}


@pytest.mark.parametrize("file", DISPATCHED.get(MACHINE, {}), ids=lambda file: file.name.split(".")[0])
def test_newer_instructions_stand_where_they_are_allowed(file: Path, baseline: Baseline) -> None:
    refused = beyond(instructions(file, baseline)[DISPATCHED_SECTION], baseline)
    for name in DISPATCHED[MACHINE][file]:
        assert any(name in line for line in refused), name


NEWER = {
    "x86_64": [
        "vpdpbusd %ymm1,%ymm2,%ymm3",
        "vpdpbusd %zmm1,%zmm2,%zmm3",
        "pshufb %xmm1,%xmm0",
        "vaddps %xmm1,%xmm0,%xmm0",
        "popcnt %rax,%rax",
        "mulx %rax,%rbx,%rcx",
    ],
    "aarch64": [
        "sdot v0.4s, v1.16b, v2.16b",
        "smmla v0.4s, v1.16b, v2.16b",
        "fadd v0.8h, v1.8h, v2.8h",
        "ldaddal w0, w1, [x2]",
        "swp w0, w1, [x2]",
        "crc32x w0, w1, x2",
    ],
}
OLD = {
    "x86_64": ["addps %xmm1,%xmm0", "jmp .", "lock cmpxchg %rax,(%rdx)", "endbr64"],
    "aarch64": ["fcvtl v0.4s, v1.4h", "fcvt h0, s1", "b.ne .", "ldaxr w0, [x1]", "paciasp"],
}


@pytest.mark.parametrize("text", NEWER.get(MACHINE, []))
def test_the_judge_knows_newer_instructions(text: str, baseline: Baseline) -> None:
    assert len(beyond([text], baseline)) == 1


@pytest.mark.parametrize("text", OLD.get(MACHINE, []))
def test_the_judge_lets_the_baseline_pass(text: str, baseline: Baseline) -> None:
    assert beyond([text], baseline) == []
