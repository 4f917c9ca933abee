"""Counts the instructions that the core's vector loops take on armv8-a, and those of the same work without vectors.

    python -m tests.campaigns.arm.instructions [--result FILE]

The emulator's plugin interface counts, so the numbers are exact, and the same on each run. Needs no root:
apt-get install qemu-user g++-aarch64-linux-gnu gcc (the static emulator of qemu-user-static takes no plugins).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORE = HERE.parents[3] / "csrc/core"
SOURCES = ("exact_math", "half", "row_math", "softmax", "candidates", "top_selection")
TOOLS = {"qemu-aarch64": "qemu-user", "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "gcc": "gcc"}
CPU = "cortex-a53"
SCORES = 52050
"""The value of kernels.cpp."""

# The flags of CMakeLists.txt and aarch64-linux-gnu.cmake.
FLAGS = ["-std=c++20", "-O3", "-DNDEBUG", "-march=armv8-a", "-ffp-contract=off", "-mno-outline-atomics"]
SCALAR = ["-fno-tree-vectorize", "-fno-tree-slp-vectorize"]


class Counter:
    """The compiled loops and the plugin that counts."""

    def __init__(self, folder: Path) -> None:
        self._kernels = folder / "kernels"
        self._plugin = folder / "plugin.so"
        call(["gcc", "-O2", "-shared", "-fPIC", str(HERE / "plugin.c"), "-o", str(self._plugin)])
        twins = folder / "scalar_twins.o"
        compiler = ["aarch64-linux-gnu-g++", *FLAGS, f"-I{CORE.parent}", f"-I{HERE}"]
        call([*compiler, *SCALAR, "-c", str(HERE / "scalar_twins.cpp"), "-o", str(twins)])
        sources = [str(CORE / f"{name}.cpp") for name in SOURCES]
        call(
            [*compiler, "-static", str(HERE / "kernels.cpp"), *sources, str(twins), "-o", str(self._kernels)]
        )

    def run(self, *arguments: str, plugin: bool = False) -> str:
        """Standard output and error of the loops' program."""
        options = ["-plugin", str(self._plugin)] if plugin else []
        return call(["qemu-aarch64", "-cpu", CPU, *options, str(self._kernels), *arguments])

    def per_call(self, loop: str, how: str) -> int:
        """The instructions of one call, from the difference of one call and three: memory is allocated by then."""
        one, three = (
            int(self.run(loop, how, calls, plugin=True).split("instructions:")[1]) for calls in ("1", "3")
        )
        return (three - one) // 2


def call(command: Sequence[str]) -> str:
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise SystemExit(f"this command failed:\n{' '.join(command)}\n{done.stdout[-3000:]}")
    return done.stdout


def measure() -> dict[str, Any]:
    """Instructions of every loop. Its results are checked first: both ways must agree bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        counter = Counter(Path(folder))
        counter.run("check")
        loops = {}
        for loop in counter.run("list").splitlines():
            vector, scalar = (counter.per_call(loop, how) for how in ("vector", "scalar"))
            loops[loop] = {
                "neon": round(vector / SCORES, 2),
                "scalar": round(scalar / SCORES, 2),
                "ratio": round(scalar / vector, 1),
            }
    return {
        "what": f"instructions per score, rows of {SCORES} scores; scalar: the same work without vector instructions",
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": f"{CPU}, counted by a plugin of {call(['qemu-aarch64', '--version']).splitlines()[0]}",
        "compiler": call(["aarch64-linux-gnu-g++", "--version"]).splitlines()[0],
        "flags": " ".join(FLAGS),
        "loops": loops,
    }


def has_tools() -> bool:
    """Return True if all programs are there; else say on stderr what to install."""
    missing = [package for command, package in TOOLS.items() if shutil.which(command) is None]
    if missing:
        print(
            f"not installed: {', '.join(missing)}. Run: apt-get install -y {' '.join(missing)}",
            file=sys.stderr,
        )
    return not missing


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.arm.instructions", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--result", type=Path, help="JSON file to write the counts to")
    options = parser.parse_args()
    if not has_tools():
        return 2
    text = json.dumps(measure(), indent=2) + "\n"
    if options.result is not None:
        options.result.write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
