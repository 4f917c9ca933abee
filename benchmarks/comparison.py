"""Compares this package with other engines: the same shape, threads and prompts, in interleaved trials.

A trial is one prompt and the greedy tokens after it, or several prompts side by side. Each round goes through all
prompt lengths and numbers of rows, and at each through all engines. Each engine has its own process, which is stopped
during the trials of the others. Medians are over rounds. An engine that is not installed, or fails, is in the result
with the reason.

    python -m benchmarks engines --work FOLDER --out benchmarks/results/NAME_engines.json

FOLDER keeps the models (4 GB). The first run makes them (5 minutes on 2 cores; --prepare makes them and stops).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from benchmarks import models
from benchmarks.arguments import count, out_file
from benchmarks.children import Child, ChildFailed
from benchmarks.engine_specs import ENGINES, NAMES, EngineSpec
from benchmarks.engines import PACKAGES
from sabiyarn_edge.bench.bandwidth import read_bandwidth
from sabiyarn_edge.bench.engine import NUM_BEAMS
from sabiyarn_edge.bench.machine import describe_machine
from sabiyarn_edge.bench.measure import LENGTHS
from sabiyarn_edge.bench.statistics import summary
from sabiyarn_edge.bench.trial import Trial, summarize
from sabiyarn_edge.system.cpus import usable_cpus

BEAM_LENGTH, MEMORY_TOKENS = 128, 256
ROWS, ROW_LENGTH = (1, 4, 8, 16), 128
LONG = 2000  # tokens; prompts from here on take seconds, and get fewer rounds
VERSIONS = (
    "sabiyarn-edge",
    "onnxruntime",
    "numpy",
    "torch",
    "transformers",
    "llama-cpp-python",
    "ctranslate2",
    "onnxruntime-genai",
)
EXCLUDED = (
    "tokenizing and detokenizing; sampling but the greedy choice; a first trial of each engine, in which its memory is "
    "measured. Weights are random, so texts mean nothing"
)


class Run:
    """One benchmark run and what it has measured so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.threads: int = args.threads or usable_cpus()
        self.positions = models.SHAPES[args.shape]["block_size"]
        self.skipped: dict[str, str] = {}
        self.paths: dict[str, Path] = {}
        self.children: dict[str, Child] = {}
        self.starts: dict[str, list[dict[str, float]]] = {}
        self.trials: dict[str, dict[int, list[Trial]]] = {}
        self.beams: dict[str, list[float]] = {}
        self.rows: dict[str, dict[int, list[Trial]]] = {}
        self.rates: list[float] = []

    def prepare(self) -> None:
        """Make the models of all engines that are installed."""
        for engine in self.chosen():
            missing = [name for name in PACKAGES[engine.module] if importlib.util.find_spec(name) is None]
            if missing:
                self._skip(engine.name, f"not installed: {', '.join(missing)}")
                continue
            self._say(f"{engine.name}: model")
            try:
                self.paths[engine.name] = engine.make(self.args.work, self.args.shape)
            except Exception as error:  # of any converter; the other engines go on
                self._skip(engine.name, f"its model could not be made: {_first_line(error)}")

    def load(self) -> None:
        """Start every engine --loads times and keep the last process."""
        for start in range(self.args.loads):
            for engine in self.chosen():
                name = engine.name
                if name not in self.paths or name in self.skipped:
                    continue
                self._say(f"{name}: load")
                with self._failing(name):
                    arguments = [
                        engine.module, str(self.paths[name]), str(self.threads), str(self.positions)
                    ]  # fmt: skip
                    child = Child("benchmarks.engines.serve", arguments, self.args.patience)
                    self.starts.setdefault(name, []).append(child.hello)
                    if start == self.args.loads - 1:
                        self.children[name] = child
                    else:
                        child.close()

    def memory(self) -> None:
        """Measure memory after a prompt of 16 and 256 new tokens. This also warms the engine up."""
        steps = min(MEMORY_TOKENS, self.positions - 20) - 1
        for name, child in list(self.children.items()):
            self._say(f"{name}: {MEMORY_TOKENS} tokens")
            with self._failing(name):
                child.ask(do="trial", length=16, steps=steps, seed=0)
                child.ask(do="memory", name=f"after_{MEMORY_TOKENS}_tokens")

    def measure(self) -> None:
        """Run rounds over all lengths and engines until --rounds or --minutes are used up."""
        began = time.perf_counter()
        longest = 0.0
        for round_ in range(self.args.rounds):
            started = time.perf_counter()
            if round_ > 0 and started - began + longest > 60 * self.args.minutes:
                self._say(f"time is up after {round_} rounds")
                break
            self.rates += read_bandwidth(self.threads, passes=4)
            for length in self.args.lengths:
                if length < LONG or round_ < self.args.long_rounds:
                    self._measure_length(round_, length)
            for rows in self.args.rows:
                self._measure_rows(round_, rows)
            longest = max(longest, time.perf_counter() - started) if round_ != 0 else 0.0
        for name, child in list(self.children.items()):
            with self._failing(name):
                child.ask(do="memory", name=f"after_prompt_of_{max(self.args.lengths)}")

    def _measure_length(self, round_: int, length: int) -> None:
        for name in self._order(round_):
            self._say(f"round {round_ + 1}, {length} tokens, {name}")
            with self._failing(name):
                child = self.children[name]
                answer = child.ask(do="trial", length=length, steps=self.args.steps, seed=round_ + 1)
                self.trials.setdefault(name, {}).setdefault(length, []).append(Trial(**answer))
                if length == BEAM_LENGTH:
                    found = child.ask(do="beams", length=length, steps=self.args.steps, seed=round_ + 1)
                    if found["seconds"] is not None:
                        self.beams.setdefault(name, []).append(1e3 * found["seconds"])

    def _measure_rows(self, round_: int, rows: int) -> None:
        for name in self._order(round_):
            self._say(f"round {round_ + 1}, {rows} rows, {name}")
            with self._failing(name):
                answer = self.children[name].ask(
                    do="rows", count=rows, length=ROW_LENGTH, steps=self.args.steps, seed=round_ + 1
                )
                if answer:
                    self.rows.setdefault(name, {}).setdefault(rows, []).append(Trial(**answer))

    def _order(self, round_: int) -> list[str]:
        """Return the engines; each round begins with another one."""
        names = list(self.children)
        first = round_ % max(len(names), 1)
        return names[first:] + names[:first]

    def result(self) -> dict[str, Any]:
        """Return the complete result, ready for JSON."""
        bandwidth = max(self.rates)
        engines = {}
        for name, child in list(self.children.items()):
            with self._failing(name):
                facts = child.ask(do="facts")
                self._check(name, facts)
                starts, path = self.starts[name], self.paths[name]
                engines[name] = {
                    **facts,
                    "disk_bytes": _size(path if path.is_dir() else path.parent),
                    "import_seconds": summary([start["import_seconds"] for start in starts]),
                    "load_seconds": summary([start["load_seconds"] for start in starts]),
                    "lengths": {
                        str(length): summarize(
                            trials,
                            weight_bytes=facts["weight_bytes_per_step"],
                            kv_bytes=facts["kv_bytes_per_position"],
                            bandwidth=bandwidth,
                        )
                        for length, trials in sorted(self.trials[name].items())
                    },
                }
                if name in self.rows:
                    engines[name]["rows"] = {
                        str(rows): summarize_rows(rows, trials) for rows, trials in self.rows[name].items()
                    }
                if name in self.beams:
                    engines[name]["beams"] = {
                        "num_beams": NUM_BEAMS,
                        "prompt_tokens": BEAM_LENGTH,
                        "step_ms": summary(self.beams[name]),
                    }
        return {
            "benchmark": "engines",
            "machine": describe_machine(VERSIONS),
            "model": models.SHAPES[self.args.shape],
            "threads": self.threads,
            "steps_per_trial": self.args.steps,
            "row_prompt_tokens": ROW_LENGTH,
            "bandwidth": {"threads": self.threads, "best": bandwidth, **summary(self.rates)},
            "excluded": EXCLUDED,
            "skipped": self.skipped,
            "engines": engines,
        }

    def add_accuracy(self, result: dict[str, Any]) -> None:
        """Compare our dtypes with our float32. Call it after all engines have ended."""
        from benchmarks.accuracy import accuracy

        reference = self.paths.get("sabiyarn_edge float32")
        for name, engine in result["engines"].items():
            if name.startswith("sabiyarn_edge ") and reference:
                self._say(f"{name}: accuracy")
                engine["accuracy"] = accuracy(reference, self.paths[name])

    def close(self) -> None:
        """End all processes."""
        for child in self.children.values():
            child.close()

    def _check(self, name: str, facts: dict[str, Any]) -> None:
        """Raise ChildFailed if the engine does other work than it was asked for."""
        wanted = {"threads": self.threads, "vocab_size": models.SHAPES[self.args.shape]["vocab_size"]}
        for key, value in wanted.items():
            if facts[key] != value:
                raise ChildFailed(f"{key} is {facts[key]}, not {value}")

    def chosen(self) -> list[EngineSpec]:
        """Return the engines that --only names."""

        def is_meant(word: str, name: str) -> bool:
            return word == name if word in NAMES else word in name

        only = self.args.only or [""]
        return [one for one in ENGINES if any(is_meant(word, one.name) for word in only)]

    def _failing(self, name: str) -> _Failing:
        return _Failing(self, name)

    def _skip(self, name: str, reason: str) -> None:
        self._say(f"{name} is skipped: {reason}")
        self.skipped[name] = reason
        self.children.pop(name, None)

    def _say(self, message: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


class _Failing:
    """Leaves out, and names, an engine that fails; the others go on."""

    def __init__(self, run: Run, name: str) -> None:
        self._run, self._name = run, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, ChildFailed | BrokenPipeError):
            return False
        self._run._skip(self._name, str(error) or type(error).__name__)
        return True


def summarize_rows(rows: int, trials: Sequence[Trial]) -> dict[str, Any]:
    """Summarize all trials of so many rows; tokens are those of all rows together."""
    step = summary([1e3 * seconds for trial in trials for seconds in trial.step_seconds])
    tokens = rows * sum(len(trial.step_seconds) for trial in trials)
    return {
        "step_ms": step,
        "tokens_per_second": 1e3 * rows / step["median"],
        "cpu_seconds_per_100_tokens": 100 * sum(trial.cpu_seconds for trial in trials) / tokens,
    }


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--work", type=Path, required=True, help="folder that keeps the models")
    add("--shape", choices=tuple(models.SHAPES), default="full", help="full (default), or small to try it")
    add("--lengths", type=count, nargs="+", default=list(LENGTHS), help="prompt tokens (16 128 1024 4000)")
    add("--rows", type=count, nargs="+", default=list(ROWS), help="prompts side by side (1 4 8 16)")
    add("--steps", type=count, default=16, help="tokens timed after each prompt (16)")
    add("--rounds", type=count, default=8, help="number of rounds, unless --minutes ends earlier (8)")
    add("--long-rounds", type=int, default=2, help=f"rounds with prompts from {LONG} tokens on (2)")
    add("--minutes", type=float, default=11.0, help="begin no round that would end after so long (11)")
    add("--loads", type=count, default=3, help="starts of each engine (3)")
    add("--patience", type=float, default=120.0, help="leave out an engine whose trial takes longer, s (120)")
    add("--threads", type=count, help="of each engine; default: all CPUs this process may use")
    add("--only", nargs="+", metavar="WORD", help="engines of one of these names, or whose names contain it")
    add("--prepare", action="store_true", help="make the models and stop")
    add("--out", type=out_file, help="write the result as JSON")
    args = parser.parse_args()
    run = Run(args)
    if not run.chosen():
        parser.error(f"--only {' '.join(args.only)}: no engine is called so. There are: {', '.join(NAMES)}")
    fitting = [n for n in sorted(set(args.lengths)) if n + args.steps + 1 <= run.positions]
    if not fitting:
        parser.error(
            f"--lengths: prompts and {args.steps} tokens more do not fit the model's {run.positions} positions"
        )
    if ROW_LENGTH + args.steps + 1 > run.positions:
        parser.error(
            f"--steps: {ROW_LENGTH} tokens and {args.steps} more do not fit {run.positions} positions"
        )
    args.lengths, args.rows = fitting, sorted(set(args.rows))
    args.work.mkdir(parents=True, exist_ok=True)
    run.prepare()
    if args.prepare:
        return 0
    try:
        run.load()
        run.memory()
        run.measure()
        result = run.result()
    finally:
        run.close()
    _write(result, args.out)  # what took long is safe now
    run.add_accuracy(result)
    _write(result, args.out or sys.stdout)
    return 0 if result["engines"] else 1


def _write(result: dict[str, Any], out: Path | TextIO | None) -> None:
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    if isinstance(out, Path):
        out.write_text(text, encoding="utf-8")
    elif out:
        out.write(text)
