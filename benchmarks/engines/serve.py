"""python -m benchmarks.engines.serve MODULE PATH THREADS POSITIONS: one engine in this process, asked by JSON lines."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any


def main() -> None:
    name, path, threads, positions = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print must not come between the answers
    from sabiyarn_edge.bench.footprint import footprint, forget_peak

    started = time.perf_counter()
    module = importlib.import_module(f"benchmarks.engines.{name}")
    import_seconds = time.perf_counter() - started
    memory = {"imported": footprint()}
    forget_peak()
    started = time.perf_counter()
    engine = module.Engine(Path(path), int(threads), int(positions))
    load_seconds = time.perf_counter() - started
    memory["loaded"] = footprint()
    forget_peak()

    def answer(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    answer({"import_seconds": import_seconds, "load_seconds": load_seconds})
    for line in sys.stdin:
        request = json.loads(line)
        kind = request.pop("do")
        if kind == "rows" and not hasattr(engine, "rows"):
            answer({})
        elif kind in ("trial", "rows"):
            trial = getattr(engine, kind)(**request)
            if trial.prompt_tokens != request["length"] or len(trial.step_seconds) != request["steps"]:
                raise ValueError(
                    f"asked for {request}, got {trial.prompt_tokens} and {len(trial.step_seconds)}"
                )
            answer(asdict(trial))
        elif kind == "beams":
            has = hasattr(engine, "beam_step_seconds")
            answer({"seconds": engine.beam_step_seconds(**request) if has else None})
        elif kind == "memory":
            memory[request["name"]] = footprint()
            answer(memory)
        else:
            answer({**asdict(engine.facts()), "memory": memory})


if __name__ == "__main__":
    main()
