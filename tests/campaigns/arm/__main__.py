"""Runs the tests of the run time on an emulated ARM board, as a Raspberry Pi 3, 4 and 5 would.

    sudo python -m tests.campaigns.arm [--release bookworm] [--cpu cortex-a53 ...] [--results FOLDER] [-- OPTIONS]

Needs Debian or Ubuntu on x86-64, root, a network, and this Python with the package installed for testing (torch makes
the models that the board runs). What is missing is named. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.campaigns.arm.board import Board, BoardError, check_tools, enable_emulation, run
from tests.campaigns.arm.cpus import CPUS
from tests.campaigns.arm.cross_build import REPOSITORY, build_wheel, fresh_folder
from tests.device import OPTIONAL, needs
from tests.disassembly import AARCH64, beyond_baseline

RUN_TIME = ["numpy", "onnxruntime", "tokenizers", "sentencex"]
TEST_TOOLS = ["pytest", "hypothesis", "regex"]
ABSENT = frozenset(OPTIONAL) - {"sabiyarn_edge._core_testing"}
"""Packages that tests import and the board does not have."""
SYSTEM_TESTS = (
    "tests/campaigns/arm/test_golden_tokens.py::test_the_oracle_gives_the_greedy_tokens",
    "tests/cli/test_process.py",
    "tests/test_device.py",
    "tests/system/test_atomic_write.py",
    "tests/test_imports.py",
    "tests/text/test_incremental_decoding.py",
    "tests/campaigns/test_batch_kills.py",
    "tests/campaigns/test_fuzz.py",
    "tests/campaigns/test_no_sockets.py",
    "tests/campaigns/test_soak.py",
    "tests/cli/test_locales.py",
    "tests/constraints/test_choices.py",
    "tests/evaluate/test_evaluate.py",
    "tests/options/test_generation_config.py",
    "tests/planning/test_memory_plan.py",
    "tests/test_public_arguments.py",
    "tests/text/test_streaming.py::test_letters_arrive_whole_however_tokens_split_them",
    "tests/system/test_telemetry.py",
)
"""Tests that do not depend on the CPU and take most of the time under emulation: they start about a hundred Pythons, or
try many texts, files or arguments. Only the first CPU model runs them. All run the same commands in one process, and
SMOKE as a process."""
SMOKE = ["-m", "sabiyarn_edge", "generate", "--quiet", "--max-new-tokens", "16", "<yor> Gbogbo ènìyàn"]


class Stages:
    """Prints the current stage, and records how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        print(f"== {name}", flush=True)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)
        print(f"   {self.seconds[name]} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.arm", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--release",
        default="bookworm",
        help="Debian release of the board: bookworm has Python 3.11, trixie 3.13",
    )
    parser.add_argument("--cpu", choices=CPUS, nargs="+", default=list(CPUS), help="qemu's CPU models")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="test runs at once")
    parser.add_argument(
        "--part",
        choices=["cpu", "system", "all"],
        default="all",
        help="cpu: without SYSTEM_TESTS; system: these",
    )
    parser.add_argument(
        "--again", action="store_true", help="take the wheel, models and tests of the last run from the cache"
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="folder for the outcome, RELEASE.json; written after each part, and what was not tried now stays in it",
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), help="1 GB is kept here")
    parser.add_argument("pytest", nargs="*", help="options for pytest, behind --")
    options = parser.parse_args()
    try:
        outcome = try_board(options)
    except BoardError as error:
        print(f"tests.campaigns.arm: {error}", file=sys.stderr)
        return 2
    print(json.dumps(outcome, indent=2))
    return 0 if all_passed(outcome) else 1


def all_passed(outcome: dict[str, Any]) -> bool:
    tried = [*outcome["cpus"].values(), *([outcome["system_tests"]] if "system_tests" in outcome else [])]
    passed = all(not found["failed"] and not found["exit_code"] for found in tried)
    return (
        passed
        and all(found["continues_as_x86_64"] for found in outcome["cpus"].values())
        and not outcome["instructions_beyond_armv8_a"]
    )


def try_board(options: argparse.Namespace) -> dict[str, Any]:
    """Make the board, put the package and its tests on it, run them on each CPU model."""
    stage = Stages()
    check_tools()
    enable_emulation()
    with stage("root file system"):
        board = Board.make(options.cache, options.release)
    if options.again:
        wheel = next((options.cache / f"wheel-{board.release}").glob("*.whl"))
    else:
        with stage("wheel"):
            wheel = build_wheel(board, options.cache)
        with stage("install"):
            if not (board.site_packages / "onnxruntime").exists():
                board.install([*RUN_TIME, *TEST_TOOLS])
            board.install([str(wheel)], "--no-deps")
        with stage("models"):
            exports = make_exports(options.cache)
        copy_tests(board, exports)
    with stage("instructions"):
        beyond = instructions_beyond(wheel, options.cache)
    revision = (board.root / "board/revision").read_text(encoding="ascii").strip()
    outcome: dict[str, Any] = {
        "device": f"emulated by qemu-user on {platform.machine()}; times say nothing about a board",
        "date": datetime.now(UTC).date().isoformat(),
        "debian": board.release,
        "python": board.python_version,
        "versions": versions_on(board),
        "revision": revision,
        "wheel": wheel.name,
        "wheel_bytes": published_bytes(wheel),
        "instructions_beyond_armv8_a": beyond,
        "seconds": stage.seconds,
    }
    result = options.results / f"{board.release}.json" if options.results is not None else None
    kept = json.loads(result.read_text(encoding="utf-8")) if result is not None and result.exists() else {}
    outcome["cpus"] = kept.get("cpus", {})
    if "system_tests" in kept:
        outcome["system_tests"] = kept["system_tests"]

    def save() -> None:
        if result is not None:
            result.parent.mkdir(parents=True, exist_ok=True)
            result.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")

    def try_cpu(cpu: str) -> None:
        others = [f"--deselect={name}" for name in SYSTEM_TESTS]
        tried = run_tests(board, cpu, [*others, *options.pytest], name=cpu)
        same = continues_as_x86_64(board, cpu)
        outcome["cpus"][cpu] = {**tried, "revision": revision, "continues_as_x86_64": same}
        save()

    def try_system() -> None:
        tried = run_tests(board, options.cpu[0], [*SYSTEM_TESTS, *options.pytest], name="system")
        outcome["system_tests"] = {**tried, "revision": revision}
        save()

    jobs = [try_system] if options.part != "cpu" else []
    if options.part != "system":
        jobs += [partial(try_cpu, cpu) for cpu in options.cpu]
    with stage("tests"), ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda job: job(), jobs))
    outcome["cpu_seconds"] = round(cpu_seconds_of_children())
    save()
    return outcome


def copy_tests(board: Board, exports: Path) -> None:
    """Put the tests and the models that they use on the board."""
    folder = fresh_folder(board.root / "board")
    for name in ("tests", "tools", "csrc", "build_support"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    shutil.copytree(exports, folder / "exports")
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True
    )
    (folder / "revision").write_text(revision.stdout or "unknown: not a git checkout\n", encoding="ascii")


def continues_as_x86_64(board: Board, cpu: str) -> bool:
    """Check that the bundled model gives the same text on this CPU as here."""
    here = subprocess.run([sys.executable, *SMOKE], check=True, capture_output=True, text=True).stdout
    log = board.root / f"board/{cpu}.said"
    exit_code = board.run(["python3", *SMOKE], log, cpu=cpu)
    return exit_code == 0 and here in log.read_text(encoding="utf-8")


def published_bytes(wheel: Path) -> int:
    """Return the size of the wheel without what only tests call, which published wheels leave out."""
    with zipfile.ZipFile(wheel) as archive:
        testing = [info for info in archive.infolist() if "_core_testing." in info.filename]
    return wheel.stat().st_size - sum(info.compress_size for info in testing)


def instructions_beyond(wheel: Path, cache: Path) -> list[str]:
    """Find instructions in the wheel's modules and library that a Cortex-A53 cannot execute."""
    folder = fresh_folder(cache / "unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    modules = sorted(folder.rglob("*.so"))
    assert len(modules) == 4, modules
    return [f"{module.name}: {line}" for module in modules for line in beyond_baseline(module, AARCH64)]


def make_exports(cache: Path) -> Path:
    """Run the board's tests here, with torch, and keep the models that they export."""
    kept = fresh_folder(cache / "exports")
    files = [
        path for path in sorted((REPOSITORY / "tests").rglob("test_*.py")) if needs(path, ABSENT) is None
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run(
        [*command, *(str(path) for path in files if uses_exports(path))],
        accept=(0, 1),  # a test that fails here will fail on the board too, and be reported there
        SABIYARN_EDGE_TEST_EXPORTS=str(kept),
        OMP_NUM_THREADS="1",
    )
    return kept


def uses_exports(path: Path) -> bool:
    """Return True if a test file asks for an exported model, by itself or through a fixture of a conftest.py."""
    text = path.read_text(encoding="utf-8")
    has_fixtures = path.parent.name != "tests" and (path.parent / "conftest.py").exists()
    return "export" in text or "_model" in text or has_fixtures


def run_tests(board: Board, cpu: str, pytest_options: list[str], *, name: str) -> dict[str, Any]:
    """Run pytest on the board. Returns how many tests passed, failed and were skipped. Its files have `name`."""
    start = time.monotonic()
    report = f"/board/{name}.xml"
    command = [
        "python3",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--durations=25",
        f"--basetemp=/tmp/{name}",
    ]
    log = board.root / f"board/{name}.log"
    exit_code = board.run(
        [*command, f"--junitxml={report}", *pytest_options],
        log,
        cpu=cpu,
        folder="/board",
        SABIYARN_EDGE_TEST_EXPORTS="/board/exports",
        PYTHONDONTWRITEBYTECODE="1",
        OMP_NUM_THREADS="1",
    )
    print(f"-- {name} ({CPUS[cpu].board})\n{log.read_text(encoding='utf-8')[-2500:]}", flush=True)
    xml = board.root / report.removeprefix("/")
    counts = ElementTree.parse(xml).getroot().find("testsuite") if xml.exists() else None
    kinds = ("tests", "failures", "errors", "skipped")
    found = {kind: int(counts.get(kind, 0)) if counts is not None else 0 for kind in kinds}
    failed = found["failures"] + found["errors"]
    return {
        "board": CPUS[cpu].board,
        "passed": found["tests"] - failed - found["skipped"],
        "failed": failed,
        "skipped": found["skipped"],
        "exit_code": exit_code,
        "seconds": round(time.monotonic() - start, 1),
        "date": datetime.now(UTC).date().isoformat(),
    }


def cpu_seconds_of_children() -> float:
    """Return the CPU seconds of all ended child processes: on a busy machine, the clock says little."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def default_cache() -> Path:
    """Return the folder that keeps the boards."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return home / "sabiyarn-edge-board"


def versions_on(board: Board) -> dict[str, str]:
    """Return the versions of the packages on the board and of the emulator."""
    stems = (path.stem for path in board.site_packages.glob("*.dist-info"))
    found = dict(stem.split("-", 1) for stem in stems)
    emulator = subprocess.run(["qemu-aarch64-static", "--version"], capture_output=True, text=True).stdout
    return {
        "qemu": emulator.split("version ")[1].split()[0],
        **{name: found[name] for name in (*RUN_TIME, *TEST_TOOLS) if name in found},
    }


if __name__ == "__main__":
    sys.exit(main())
