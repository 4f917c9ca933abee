"""Which instructions of a compiled file go beyond its architecture's baseline.

The assembler is the judge: every distinct instruction that objdump finds is given back to it with the baseline
selected, and it names those that do not belong there. So no list of newer instructions has to be kept.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DISPATCHED_SECTION = "dispatched"
"""Where functions stand that run only after the CPU was asked (csrc/core/simd/dispatched.hpp)."""


HARMLESS = {
    "xgetbv",  # libgcc's own question to the CPU, after cpuid has said that it exists
    "tzcnt",  # older CPUs execute it as bsf: the same, but for 0, of which the compiler does not ask it
}
"""Instructions beyond the baseline that do no harm."""

QUIRKS = ("same type of prefix used twice",)
"""objdump prints some padding in a way that the assembler does not take back."""


@dataclass(frozen=True)
class Baseline:
    """An architecture's minimum, as GNU as names it, and the tools for it."""

    march: str
    tool_prefix: str = ""  # of binutils for another architecture than this machine's

    @property
    def objdump(self) -> str:
        return f"{self.tool_prefix}objdump"

    @property
    def assembler(self) -> str:
        return f"{self.tool_prefix}as"


X86_64 = Baseline("generic64+ibt")  # SSE2; endbr64 does nothing on CPUs that do not know it
AARCH64 = Baseline("armv8-a", "aarch64-linux-gnu-")
AARCH64_NATIVE = Baseline("armv8-a")


def instructions(file: Path, baseline: Baseline) -> dict[str, set[str]]:
    """Section -> the distinct instructions in it, addresses of targets replaced by a dot."""
    command = [baseline.objdump, "-d", "--no-show-raw-insn", str(file)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, set[str]] = {}
    section = ""
    for line in listing.splitlines():
        if line.startswith("Disassembly of section "):
            section = line.removeprefix("Disassembly of section ").rstrip(":")
        elif match := re.match(r"\s*[0-9a-f]+:\t(.*)", line):
            text = match[1].split("\t//")[0].split(" # ")[0]  # without objdump's remarks on addresses
            text = re.sub(r"(0x)?[0-9a-f]+ <[^>]*>", ".", text)
            found.setdefault(section, set()).add(" ".join(text.split()))
    return found


def beyond(texts: Iterable[str], baseline: Baseline) -> list[str]:
    """The instructions that the assembler refuses when only the baseline is there, each with its reason."""
    lines = sorted(texts)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "instructions.s"
        source.write_text("".join(f" {line}\n" for line in lines), encoding="utf-8")
        command = [baseline.assembler, f"-march={baseline.march}", str(source), "-o", "/dev/null"]
        messages = subprocess.run(command, capture_output=True, text=True).stderr
    refused = [
        (lines[int(number) - 1], why) for number, why in re.findall(r"\.s:(\d+): Error: (.*)", messages)
    ]
    return [
        f"{line}  ({why})" for line, why in refused if line.split()[0] not in HARMLESS and why not in QUIRKS
    ]


def beyond_baseline(file: Path, baseline: Baseline) -> list[str]:
    """What `file` holds outside of dispatched functions that a CPU of the baseline cannot execute."""
    sections = instructions(file, baseline)
    sections.pop(DISPATCHED_SECTION, None)
    return beyond(set().union(*sections.values()), baseline)
