"""Compares the memory plan with measured memory, over models, lengths, batches and beams.

Each case runs in its own process: load, then one call of generate. Its memory is read from /proc/PID/smaps_rollup every
millisecond, above the memory after `import onnxruntime`. Anonymous pages and pages of memory files (which beams share)
count in proportion to their number of mappings. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.arguments import out_file
from benchmarks.children import ChildFailed
from benchmarks.output import put_out

MIB = 2**20
TOLERANCE = 0.15  # of the measured peak


@dataclass(frozen=True)
class Case:
    """One call of generate."""

    prompt_length: int
    max_length: int
    batch: int = 1
    beams: int = 1


FULL = (
    Case(4, 260),
    Case(500, 512),
    Case(1000, 1024),
    Case(2000, 2048),
    Case(4000, 4096),
    Case(500, 512, batch=4),
    Case(100, 160, batch=8),
    Case(500, 540, beams=5),
    Case(200, 240, batch=2, beams=4),
)


def held(pid: int) -> int:
    """Return the bytes of a process's private memory."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name in ("Pss_Anon", "Pss_Shmem"):
            total += int(rest.split()[0]) * 1024
    return total


def serve(model: Path, case: Case) -> None:
    """Load and generate, and wait for a line on standard input after each step."""
    import onnxruntime  # noqa: F401  (the base line: what it takes is not the model's)

    def done(**found: Any) -> None:
        print(json.dumps(found), flush=True)
        sys.stdin.readline()

    done()
    from sabiyarn_edge import EdgeGenerator

    generator = EdgeGenerator.from_pretrained(model, max_length=case.max_length)
    done()
    vocab_size = generator.config.gptjx.vocab_size
    prompts = [[(7 * i + row) % vocab_size for i in range(case.prompt_length)] for row in range(case.batch)]
    new_tokens = case.max_length - case.prompt_length
    generator.generate(prompts, max_new_tokens=new_tokens, num_beams=case.beams, eos_token_id=None)
    done()


class _Sampler:
    """Records the memory of a process over time."""

    def __init__(self, pid: int) -> None:
        self._pid, self._ended = pid, threading.Event()
        self._seen: list[tuple[float, int]] = []  # (when reading began, bytes)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.001):
            started = time.perf_counter()
            try:
                self._seen.append((started, held(self._pid)))
            except OSError:  # it has ended
                return

    def peak_since(self, moment: float) -> int:
        return max((seen for started, seen in self._seen if started >= moment), default=0)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def _child(model: Path, case: Case) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks", "memory", "--model", str(model)]
    command += ["--serve", json.dumps(asdict(case))]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def measure(model: Path, case: Case) -> dict[str, float]:
    """Return MiB above `import onnxruntime`: after load, after the call, and the peaks of both."""
    with _child(model, case) as child:
        assert child.stdin is not None and child.stdout is not None
        found: dict[str, float] = {}
        child.stdout.readline()
        base = held(child.pid)
        sampler = _Sampler(child.pid)
        try:
            for step in ("load", "generate"):
                started = time.perf_counter()
                child.stdin.write("\n")
                child.stdin.flush()
                if not child.stdout.readline():
                    raise ChildFailed(f"the measured process failed: {case}")
                time.sleep(0.01)
                found[f"after_{step}"] = (held(child.pid) - base) / MIB
                found[f"peak_of_{step}"] = max(
                    (sampler.peak_since(started) - base) / MIB, found[f"after_{step}"]
                )
        finally:
            sampler.stop()
    found["peak"] = max(found["peak_of_load"], found["peak_of_generate"])
    return found


def compare(model: Path, case: Case) -> dict[str, Any]:
    """Return plan, measurement, and the plan's error as a share of the measured peak."""
    from sabiyarn_edge import EdgeGenerator

    plan = EdgeGenerator.plan(
        model,
        max_length=case.max_length,
        prompt_length=case.prompt_length,
        batch=case.batch,
        beams=case.beams,
    )
    measured = measure(model, case)
    return {
        "case": asdict(case),
        "planned_mib": {
            name: getattr(plan, name) / MIB
            for name in (
                "weights_mapped",
                "runtime",
                "kv_cache",
                "logits",
                "scratch",
                "peak",
            )
        },
        "measured_mib": measured,
        "error": plan.peak_mib / measured["peak"] - 1,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, nargs="+", help="exported folders (default: random full-shape ones)"
    )
    parser.add_argument(
        "--dtype", nargs="+", default=["float32", "int8"], help="of the random models (default float32 int8)"
    )
    parser.add_argument("--out", type=out_file, help="write the result as JSON")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.model[0], Case(**json.loads(args.serve)))
        return 0

    from benchmarks.models import export
    from sabiyarn_edge.bench.machine import describe_machine

    result: dict[str, Any] = {"benchmark": "memory", "machine": describe_machine(), "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        models = args.model or [export(Path(folder), "full", dtype, dtype=dtype) for dtype in args.dtype]
        for model in models:
            found = []
            for case in FULL:
                found.append(compare(model, case))
                planned, measured = found[-1]["planned_mib"]["peak"], found[-1]["measured_mib"]["peak"]
                print(
                    f"{model.name}: {case}: planned {planned:.1f} MiB, measured {measured:.1f} MiB, "
                    f"{100 * found[-1]['error']:+.0f} %",
                    file=sys.stderr,
                    flush=True,
                )
            config = json.loads((model / "config.json").read_text(encoding="utf-8"))
            name = f"{config['sabiyarn_edge']['dtype']}, KV cache {config['sabiyarn_edge']['kv_cache_dtype']}"
            result["models"][name] = found
    errors = [case["error"] for found in result["models"].values() for case in found]
    result["largest_error"] = max(errors, key=abs)
    put_out(result, args.out)
    return 0 if abs(result["largest_error"]) <= TOLERANCE else 1
