"""An emulated ARM board: a Debian root file system whose programs qemu runs, as one CPU model or another."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.arm.cpus import CPUS, write_sysfs

TOOLS = {
    "debootstrap": "debootstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "update-binfmts": "binfmt-support",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "aarch64-linux-gnu-objdump": "binutils-aarch64-linux-gnu",
}
"""Command -> the Debian package that has it."""

WHEEL_PLATFORMS = [
    *(f"manylinux_2_{minor}_aarch64" for minor in (28, 27, 26, 17)),
    "manylinux2014_aarch64",
    "linux_aarch64",  # the project's wheel, built for this board
]
"""Platform tags that pip takes wheels of; Debian 12 has glibc 2.36."""

PACKAGES = ["python3", "libpython3-dev"]
"""Packages that the board has besides Debian's minimum. The headers are for the cross compiler."""


class BoardError(Exception):
    """The board cannot be made or used here; the message says what is missing."""


def check_tools() -> None:
    """Raise BoardError unless this machine can make and run the board."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise BoardError("debootstrap, mount and chroot need Linux and root. Use sudo, or a container.")
    missing = sorted({package for command, package in TOOLS.items() if shutil.which(command) is None})
    if missing:
        raise BoardError(f"not installed: {', '.join(missing)}. Run: apt-get install -y {' '.join(missing)}")


def enable_emulation() -> None:
    """Let the kernel start programs for aarch64 with qemu."""
    registry = Path("/proc/sys/fs/binfmt_misc")
    if not (registry / "status").exists():
        command = ["mount", "-t", "binfmt_misc", "none", str(registry)]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode != 0:
            raise BoardError(
                f"cannot mount binfmt_misc: {mounted.stderr.strip()}. The kernel needs CONFIG_BINFMT_MISC "
                "(modprobe binfmt_misc), and a container must be privileged."
            )
    handler = registry / "qemu-aarch64"
    if not handler.exists():
        run(["update-binfmts", "--enable", "qemu-aarch64"])
    flags = handler.read_text(encoding="ascii").split("flags:")[1].split("\n")[0]
    if "F" not in flags:
        raise BoardError(
            "qemu-aarch64 is registered without the flag F, so programs in a chroot do not find it. Install "
            "qemu-user-static, then run update-binfmts --disable qemu-aarch64 and --enable qemu-aarch64."
        )


@dataclass(frozen=True)
class Board:
    """The root file system of a Debian release for arm64, kept in a cache folder."""

    root: Path
    release: str

    @classmethod
    def make(cls, cache: Path, release: str) -> Board:
        """Make the root file system, unless the cache has it."""
        board = cls(cache / release, release)
        if not (board.root / "usr/bin/python3").is_symlink():
            shutil.rmtree(board.root, ignore_errors=True)
            partial = cache / f"{release}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            cache.mkdir(parents=True, exist_ok=True)
            # A new mount namespace: when the process is killed, its mounts end too.
            command = [
                "unshare",
                "--mount",
                "debootstrap",
                "--arch=arm64",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
            ]
            run([*command, release, str(partial), debian_mirror()])
            partial.rename(board.root)
        return board

    @property
    def python_version(self) -> str:
        """Version of the board's python3: "3.11" for bookworm."""
        return (self.root / "usr/bin/python3").readlink().name.removeprefix("python")

    @property
    def site_packages(self) -> Path:
        """Folder of packages that do not come from Debian."""
        return self.root / f"usr/local/lib/python{self.python_version}/dist-packages"

    def install(self, requirements: Sequence[str], *options: str) -> None:
        """Unpack wheels for the board with this machine's pip; nothing is compiled."""
        command = [sys.executable, "-m", "pip", "install", "--upgrade", "--target", str(self.site_packages)]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python_version}"]
        command += [f"--platform={tag}" for tag in WHEEL_PLATFORMS]
        run([*command, *options, *requirements])

    def run(self, command: Sequence[str], log: Path, *, cpu: str, folder: str = "/", **variables: str) -> int:
        """Run a command on the board, as one of CPUS; what it prints goes to `log`. Returns its exit code.

        Its mounts end with it.
        """
        write_sysfs(self.root)
        cpuinfo = self.root / f"tmp/cpuinfo-{cpu}"
        cpuinfo.write_text(CPUS[cpu].cpuinfo(), encoding="ascii")
        root = shlex.quote(str(self.root))
        steps = [
            f"mount --rbind /proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount --bind {shlex.quote(str(cpuinfo))} {root}/proc/cpuinfo",
            f"exec chroot {root} /bin/sh -c {shlex.quote(f'cd {folder} && exec {shlex.join(command)}')}",
        ]
        environment = {
            "PATH": os.defpath + ":/usr/sbin:/sbin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "QEMU_CPU": cpu,
        }
        with log.open("w", encoding="utf-8") as output:
            return subprocess.run(
                ["unshare", "--mount", "sh", "-c", " && ".join(steps)],
                env=environment | variables,
                stdout=output,
                stderr=subprocess.STDOUT,
            ).returncode


def debian_mirror() -> str:
    """The Debian mirror that this machine's apt uses, or Debian's own where it uses none."""
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(SITE) $(ORIGIN) $(COMPONENT)",
        "Created-By: Packages",
    ]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    sites = [line.split()[0] for line in lines if line.endswith(" Debian main") and "security" not in line]
    return sites[0] if sites else "http://deb.debian.org/debian"


def run(command: Sequence[str], *, accept: Collection[int] = (0,), **variables: str) -> None:
    """Run a command of this machine; raise BoardError with the end of its output when it fails."""
    done = subprocess.run(
        command, env={**os.environ, **variables}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode not in accept:
        raise BoardError(f"this command failed:\n{shlex.join(command)}\n{done.stdout[-3000:]}")
