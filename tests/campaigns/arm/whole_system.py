"""Boots the board as a whole machine, with a kernel of your choice: one with pages of 16 KiB, as a Raspberry Pi 5 has.

    python -m tests.campaigns.arm.whole_system [--release bookworm] [--cpu cortex-a76] [--result FILE] VMLINUZ
        [-- OPTIONS]

Needs the board of `python -m tests.campaigns.arm`, qemu-system-aarch64 (Debian's qemu-system-arm), cpio, 8 GB of memory
and a kernel for 64-bit ARM, such as the one in Debian 13's package linux-image-arm64-16k. The board is the kernel's
first file system, so nothing else is needed of the kernel. OPTIONS are for pytest; without them TESTS run.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.campaigns.arm.__main__ import default_cache

TESTS = [
    "tests/campaigns/arm/test_golden_tokens.py",
    "tests/core/kv",
    "tests/engine/test_session_file.py",
    "tests/model_folder",
    "tests/planning",
]
"""Tests of what deals with pages: mapped weights, the KV cache, its files, the memory plan; and of the tokens."""

LEFT_OUT = (
    "./tmp",
    "./proc",
    "./sys",
    "./dev",
    "./var/cache",
    "./usr/share/doc",
    "./usr/share/locale",
    "./usr/share/man",
)

INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export SABIYARN_EDGE_TEST_EXPORTS=/board/exports PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
mkdir -p /tmp /dev/shm && mount -t tmpfs tmp /tmp && mount -t tmpfs shm /dev/shm
echo "pages of $(getconf PAGESIZE) bytes, Linux $(uname -rm)"
cd /board
echo "text: $(python3 -m sabiyarn_edge translate --to yor 'Everyone has the right to life.' </dev/null)"
python3 -m pytest -q --color=no -p no:cacheprovider --basetemp=/tmp/pytest TESTS
echo o >/proc/sysrq-trigger
sleep 60
"""


def write_file_system(board: Path, tests: list[str], target: Path) -> None:
    """Write the board, and an init that runs tests and switches the machine off, as a cpio archive."""
    pruned = " -o ".join(f"-path {path}" for path in LEFT_OUT)
    with tempfile.TemporaryDirectory() as folder, target.open("wb") as file:
        top = Path(folder)
        for name in ("tmp", "proc", "sys", "dev"):
            (top / name).mkdir()
        (top / "init").write_text(INIT.replace("TESTS", shlex.join(tests)), encoding="utf-8")
        (top / "init").chmod(0o755)
        for place, find in ((board, f"find . -xdev \\( {pruned} \\) -prune -o -print"), (top, "find .")):
            command = f"{find} | cpio -o -H newc --quiet"  # a kernel reads archives one behind another
            subprocess.run(command, shell=True, cwd=place, stdout=file, check=True)


def boot(kernel: Path, file_system: Path, cpu: str) -> str:
    """Run the machine until it switches itself off; what it writes is shown, and returned."""
    command = [
        *f"qemu-system-aarch64 -M virt -cpu {cpu} -smp 1 -m 6144 -nographic -no-reboot".split(),
        *("-kernel", str(kernel), "-initrd", str(file_system)),
        *("-append", "console=ttyAMA0 rdinit=/init panic=-1 sysrq_always_enabled=1 quiet"),
    ]
    written = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as machine:
        assert machine.stdout is not None
        for line in machine.stdout:
            print(line, end="", flush=True)
            written.append(line)
    return "".join(written)


def outcome(written: str) -> dict[str, Any]:
    """What the machine said of its pages, the text and the tests; ValueError if it did not get so far."""
    pages = re.search(r"pages of (\d+) bytes, Linux (\S+)", written)
    text = re.search(r"^text: (.*)$", written, re.MULTILINE)
    ended = re.search(r"^(.*\b(?:passed|failed|error)\b.*) in [\d.]+s", written, re.MULTILINE)
    if pages is None or text is None or ended is None:
        raise ValueError("the machine ended before its tests did")
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+)", ended[1])}
    return {"page_bytes": int(pages[1]), "linux": pages[2], "text": text[1].strip(), "tests": counts}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.arm.whole_system", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("kernel", type=Path, metavar="VMLINUZ")
    parser.add_argument("--cpu", default="cortex-a76", help="qemu's CPU model (default cortex-a76)")
    parser.add_argument("--release", default="bookworm", help="which board (default bookworm)")
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="of python -m tests.campaigns.arm"
    )
    parser.add_argument("--result", type=Path, help="JSON file to write the outcome to")
    parser.add_argument("pytest", nargs="*", help="options for pytest, behind --")
    options = parser.parse_args()
    board = options.cache / options.release
    missing = [name for name in ("qemu-system-aarch64", "cpio") if shutil.which(name) is None]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}. Run: apt-get install -y qemu-system-arm cpio")
    if not (board / "board/tests").is_dir():
        parser.error(f"there is no board in {board}. Run: python -m tests.campaigns.arm")
    if not options.kernel.is_file():
        parser.error(f"there is no kernel {options.kernel}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file_system = Path(folder) / "board.cpio"
        write_file_system(board, options.pytest or TESTS, file_system)
        try:
            found = outcome(boot(options.kernel, file_system, options.cpu))
        except ValueError as error:
            parser.exit(1, f"{error}; what it wrote stands above\n")
    found |= {
        "cpu": options.cpu,
        "revision": (board / "board/revision").read_text(encoding="ascii").strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - started, 1),
    }
    if options.result is not None:
        options.result.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if not found["tests"].keys() & {"failed", "error", "errors"} else 1


if __name__ == "__main__":
    sys.exit(main())
