"""Feed damaged files to the readers, damaged requests to the server, and any shapes to the operators.

    python -m tests.campaigns.fuzz [TARGET ...] [--runs 2000] [--use-every 1] [--seed 0]
        [--save FOLDER]

Prints one JSON object for each target: executions, seconds, what came of them, and the share of the module's lines
that were run. A finding is an error of another kind than the documented ones, more than a second, or an allocation
of more than 1 GiB; with --save its bytes are kept. Exits with 1 if there are findings.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import json
import random
import resource
import sys
import tempfile
import time
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.campaigns.fuzz.inputs import INPUTS
from tests.campaigns.fuzz.operators import OPERATORS
from tests.campaigns.fuzz.readers import READERS
from tests.campaigns.fuzz.target import Target, outcome

TARGETS: dict[str, type[Target]] = {**READERS, **INPUTS, **OPERATORS}

STUCK_SECONDS = 120
SPARE_BYTES = 2**30
TRACED_RUNS = 300


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Have an allocation beyond SPARE_BYTES fail."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def executable_lines(module: types.ModuleType) -> set[int]:
    """Lines of a module's functions."""
    path = Path(str(module.__file__))
    waiting, lines = [compile(path.read_text(encoding="utf-8"), str(path), "exec")], set()
    while waiting:
        code = waiting.pop()
        inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        waiting += inner
        if code.co_name != "<module>":
            lines |= {line for _, _, line in code.co_lines() if line}
    return lines


def lines_run(target: Target, contents: list[bytes]) -> set[int]:
    """Lines of the target's module that reading runs."""
    assert target.module is not None
    file, lines = str(target.module.__file__), set()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != file:
            return None
        lines.add(frame.f_lineno)
        return trace

    sys.settrace(trace)
    try:
        for content in contents:
            outcome(target, content)
    finally:
        sys.settrace(None)
    return lines


def fuzz(name: str, runs: int, seed: int, save: Path | None = None, use_every: int = 1) -> dict[str, Any]:
    """Run one target; of the damaged inputs, each use_every-th is also used, not only read."""
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.closing(TARGETS[name](Path(folder))) as target,
    ):
        warnings.simplefilter("ignore")
        if outcome(target, target.whole()) != "read":
            raise AssertionError(f"{name}: a whole file is not read: {outcome(target, target.whole())}")
        results: Counter[str] = Counter()
        traced: list[bytes] = [target.whole()]
        started = time.perf_counter()
        with limited_memory():
            for run in range(runs):
                content = target.make(random.Random(f"{seed} {run}"))
                faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
                result = outcome(target, content, use=run % use_every == 0)
                faulthandler.cancel_dump_traceback_later()
                if result.startswith("FINDING") and save is not None and result not in results:
                    (save / name).mkdir(parents=True, exist_ok=True)
                    (save / name / hashlib.sha256(content).hexdigest()[:12]).write_bytes(content)
                results[result] += 1
                if len(traced) < TRACED_RUNS:
                    traced.append(content)
        seconds = time.perf_counter() - started
        covered = {}
        if target.module is not None:
            lines = executable_lines(target.module)
            covered = {"lines_covered": f"{len(lines_run(target, traced) & lines)} of {len(lines)}"}
    return {
        "target": name,
        "seed": seed,
        "runs": runs,
        "used": -(-runs // use_every),
        "seconds": round(seconds, 1),
        **covered,
        "results": dict(results.most_common()),
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--use-every", type=int, default=1, metavar="N", help="use only every N-th, read all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    good = True
    for name in arguments.targets or TARGETS:
        report = fuzz(name, arguments.runs, arguments.seed, arguments.save, arguments.use_every)
        print(json.dumps(report, indent=1), flush=True)
        good = good and not any(result.startswith("FINDING") for result in report["results"])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
