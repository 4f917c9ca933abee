"""Change the program on purpose, one decision at a time, and see whether the tests notice.

    python -m tests.campaigns.mutants [TEXT ...]

Works on a copy of the checkout's tracked files, which it builds once and then piece by piece. TEXT: only mutants whose
name contains one of these; "left": those that result.json beside this file does not call killed. Keeps each outcome in
that file. Exits with 1 if fewer than 95 % of all were noticed, or if a test fails on the unchanged copy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from .masks_and_calls import MASKS_AND_CALLS
from .mutant import Mutant
from .native import NATIVE
from .python import PYTHON

ROOT = Path(__file__).parents[3]
RESULT = Path(__file__).with_name("result.json")
TIMEOUT_SECONDS = 300
"""For one mutant's tests: one that runs for ever is noticed too."""
UNCHANGED_SECONDS = 1800
"""For the tests of all chosen mutants on the unchanged copy."""
LEAST = 0.95


class Copy:
    """A copy of the checkout with compiled modules of its own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.build_folder = folder / "checkout", folder / "build"
        self.printed = ""
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)

    def configure(self) -> None:
        """Prepare the build; it uses ccache where there is one."""
        import pybind11

        scripts = Path(sys.executable).parent  # where pip puts cmake and ninja
        self._cmake = shutil.which("cmake", path=str(scripts)) or shutil.which("cmake") or "cmake"
        ninja = shutil.which("ninja", path=str(scripts)) or shutil.which("ninja") or "ninja"
        defines = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_CXX_FLAGS_RELEASE": "-O1 -DNDEBUG",  # the same bits, in half of the compiler's time
            "CMAKE_MAKE_PROGRAM": ninja,
            "SABIYARN_EDGE_PYTHON": "ON",
            "SABIYARN_EDGE_TESTING": "ON",
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            **({"CMAKE_CXX_COMPILER_LAUNCHER": "ccache"} if shutil.which("ccache") else {}),
        }
        arguments = [f"-D{name}={value}" for name, value in defines.items()]
        subprocess.run(
            [self._cmake, "-S", self.root, "-B", self.build_folder, "-G", "Ninja", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def build(self) -> bool:
        """Compile what has changed. Returns False if it is no program any more."""
        done = subprocess.run([self._cmake, "--build", self.build_folder], capture_output=True, check=False)
        return done.returncode == 0

    def test(self, tests: tuple[str, ...], seconds: float = TIMEOUT_SECONDS) -> str:
        """Run tests, up to the first that fails or until `seconds` are over.

        Returns "passed", "failed" or "timed out"; what pytest said is in `printed`.
        """
        variables = {**os.environ, "SABIYARN_EDGE_MODULES": str(self.build_folder)}
        plugins = ["-p", "no:cacheprovider", "-p", "tests.campaigns.mutants.plugin"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-x", *plugins, *tests],
                cwd=self.root,
                env=variables,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "timed out"
        self.printed = done.stdout.decode(errors="replace")
        return "passed" if done.returncode == 0 else "failed"


def run(copy: Copy, mutant: Mutant) -> str:
    """What becomes of a mutant: "killed", "survived" or "does not compile"."""
    path = copy.root / mutant.file
    whole = path.read_text(encoding="utf-8")
    try:
        mutant.apply(copy.root)
        if mutant.is_native and not copy.build():
            return "does not compile"
        return "survived" if copy.test(mutant.tests) == "passed" else "killed"
    finally:
        path.write_text(whole, encoding="utf-8")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="TEXT")
    arguments = parser.parse_args()
    every = [*PYTHON, *NATIVE, *MASKS_AND_CALLS]
    known = json.loads(RESULT.read_text(encoding="utf-8"))["outcomes"] if RESULT.exists() else {}
    outcomes = {mutant.name: known[mutant.name] for mutant in every if mutant.name in known}
    chosen = [
        mutant
        for mutant in every
        if not arguments.names
        or any(text in mutant.name for text in arguments.names)
        or ("left" in arguments.names and outcomes.get(mutant.name) != "killed")
    ]
    killed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder))
        copy.configure()
        if not copy.build():
            print("the unchanged copy does not compile")
            return 1
        tests = tuple(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
        if (found := copy.test(tests, UNCHANGED_SECONDS)) != "passed":
            print(f"the tests {found} on the unchanged copy\n{copy.printed[-4000:]}")
            return 1
        for mutant in chosen:
            outcomes[mutant.name] = run(copy, mutant)
            print(f"{outcomes[mutant.name]:<18}{mutant.name}", flush=True)
            killed = save(outcomes)
    print(f"{killed} of {len(every)} were noticed")
    return 0 if killed >= LEAST * len(every) else 1


def save(outcomes: dict[str, str]) -> int:
    """Write result.json. Returns how many mutants were killed."""
    killed = sum(outcome == "killed" for outcome in outcomes.values())
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "mutants": len(outcomes),
        "killed": killed,
        "outcomes": outcomes,
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return killed


if __name__ == "__main__":
    sys.exit(main())
