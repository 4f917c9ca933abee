"""Runs the native tests on CPUs that this machine need not be: an emulated one with AVX-512, VNNI and AVX-VNNI.

    python -m tests.campaigns.x86 [--root FOLDER] [--cpu sapphire_rapids] [--tests linear attention] [--result FILE]

Bochs 3 emulates the CPU, and machine.c is the system: the least that one static program of one thread needs. Needs gcc,
CMake, xorriso, isolinux, syslinux-common (Debian's names) and Bochs 3. Where the system has an older one, make a Debian
13 with it in FOLDER, as root:

    debootstrap --variant=minbase --include=bochs,bochsbios,vgabios trixie FOLDER

While a test runs, Bochs' display listens on port 5900.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = Path(__file__).parents[3]
TESTS = ("linear", "attention", "exact_math", "softmax", "top_k", "categorical_sample", "beam_search")
"""Native tests of one thread in which instruction sets differ."""
ISOLINUX, MODULES = Path("/usr/lib/ISOLINUX/isolinux.bin"), Path("/usr/lib/syslinux/modules/bios")
MENU = (
    "DEFAULT test\nPROMPT 0\nTIMEOUT 1\nLABEL test\n KERNEL mboot.c32\n APPEND /kernel.elf --- /program.elf\n"
)
SETTINGS = """config_interface: textconfig
display_library: rfb, options="timeout=20"
memory: guest=1024, host=1024
cpu: model={cpu}, count=1, ips=100000000, reset_on_triple_fault=0
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path={folder}/image.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={folder}/console.txt
log: {folder}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
clock: sync=none
"""
GCC = (
    "gcc -O2 -ffreestanding -fno-stack-protector -mno-red-zone -mgeneral-regs-only -fno-pic -fno-pie "
    "-fno-tree-loop-distribute-patterns -c"
)


def run(*command: str | Path) -> None:
    words = [str(part) for part in command]
    outcome = subprocess.run(words, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\n{outcome.stdout}{outcome.stderr}")


def build_tests(folder: Path) -> None:
    """The native tests, statically linked."""
    define = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_EXE_LINKER_FLAGS": "-static",
        "SABIYARN_EDGE_PYTHON": "OFF",
        "SABIYARN_EDGE_TESTS": "ON",
    }
    run("cmake", "-S", REPOSITORY, "-B", folder, *(f"-D{name}={value}" for name, value in define.items()))
    run("cmake", "--build", folder, "--parallel", str(os.cpu_count()))


def build_kernel(folder: Path) -> Path:
    """boot.S and machine.c as Multiboot takes them."""
    objects = [folder / "boot.o", folder / "machine.o"]
    for source, made in zip(("boot.S", "machine.c"), objects, strict=True):
        run(*GCC.split(), HERE / source, "-o", made)
    run("ld", "-n", "-T", HERE / "link.ld", "--no-warn-rwx-segments", *objects, "-o", folder / "kernel64.elf")
    run("objcopy", "-O", "elf32-i386", folder / "kernel64.elf", folder / "kernel.elf")
    return folder / "kernel.elf"


def write_image(kernel: Path, program: Path, target: Path) -> None:
    """A CD that starts the program."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "isolinux").mkdir()
        shutil.copy(kernel, top / "kernel.elf")
        run("strip", program, "-o", top / "program.elf")
        shutil.copy(ISOLINUX, top / "isolinux")
        for module in ("ldlinux", "mboot", "libcom32"):
            shutil.copy(MODULES / f"{module}.c32", top / "isolinux")
        (top / "isolinux/isolinux.cfg").write_text(MENU, encoding="ascii")
        boot = (
            "-b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table"
        )
        run("xorriso", "-as", "mkisofs", "-quiet", "-o", target, *boot.split(), top)


@contextmanager
def machine(root: Path, folder: Path, cpu: str) -> Iterator[subprocess.Popen[bytes]]:
    """Bochs with the CD in `folder`, which ends with the block."""
    inside = Path("/") / folder.relative_to(root)
    (folder / "settings").write_text(SETTINGS.format(cpu=cpu, folder=inside), encoding="ascii")
    command = ["bochs", "-q", "-f", str(inside / "settings")]
    if root != Path("/"):
        command = ["chroot", str(root), *command]
    with (folder / "output.txt").open("wb") as output:
        bochs = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        threading.Thread(target=watch_display, args=(bochs,), daemon=True).start()
        try:
            yield bochs
        finally:
            bochs.kill()
            bochs.wait()


def watch_display(bochs: subprocess.Popen[bytes]) -> None:
    """Bochs waits for somebody who looks at its display, by version 3.3 of the remote frame buffer's protocol."""
    while bochs.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", 5900), 5) as display:
            display.settimeout(None)
            display.recv(12)
            display.sendall(b"RFB 003.003\n")
            display.recv(4)
            display.sendall(b"\1")
            while display.recv(65536):
                pass
        time.sleep(0.1)


def run_test(root: Path, kernel: Path, program: Path, cpu: str, minutes: float) -> dict[str, object]:
    """What the program wrote, and how it ended."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=root / "tmp") as name:
        folder = Path(name)
        write_image(kernel, program, folder / "image.iso")
        console, written = folder / "console.txt", ""
        with machine(root, folder, cpu) as bochs:
            while bochs.poll() is None and time.monotonic() < started + 60 * minutes:
                time.sleep(0.5)
                written = console.read_text(errors="replace") if console.exists() else ""
                if ended := re.search(r"^exit code (\d+)$", written, re.MULTILINE):
                    break
            else:
                print(written + (folder / "output.txt").read_text(errors="replace"), file=sys.stderr)
                return {"ended": False}
    lines = written[: ended.start()].splitlines()
    return {"exit_code": int(ended[1]), "wrote": lines, "seconds": round(time.monotonic() - started, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.x86", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--root", type=Path, default=Path("/"), help="a system that has Bochs 3")
    parser.add_argument(
        "--cpu", default="sapphire_rapids", help="Bochs' name of the CPU (`bochs --help cpu`)"
    )
    parser.add_argument(
        "--tests", nargs="+", default=TESTS, choices=TESTS, metavar="NAME", help=f"of {', '.join(TESTS)}"
    )
    parser.add_argument("--minutes", type=float, default=60, help="that a test may take (default 60)")
    parser.add_argument("--result", type=Path, help="JSON file to write the outcome to")
    options = parser.parse_args()
    missing = [name for name in ("gcc", "cmake", "xorriso") if shutil.which(name) is None]
    missing += [str(path) for path in (ISOLINUX, MODULES / "mboot.c32") if not path.exists()]
    if missing:
        parser.error(
            f"not installed: {', '.join(missing)}. Run: apt-get install -y xorriso isolinux syslinux-common"
        )
    root = options.root.resolve()
    if not (root / "usr/bin/bochs").exists():
        parser.error(f"there is no Bochs in {root}; {__file__} says how to make a system with it")
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "revision": revision.stdout.strip(),
        "cpu": options.cpu,
        "tests": {},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_tests(folder)
        kernel = build_kernel(folder)
        for test in options.tests:
            outcome = run_test(
                root, kernel, folder / f"tests/native/test_{test}", options.cpu, options.minutes
            )
            found["tests"][test] = outcome
            print(test, json.dumps(outcome), flush=True)
    if options.result is not None:
        options.result.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if all(outcome.get("exit_code") == 0 for outcome in found["tests"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
