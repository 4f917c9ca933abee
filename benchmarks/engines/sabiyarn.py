"""This package, through its public methods; rows are timed by the runs of the graph."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import onnxruntime  # noqa: F401  (its time and memory are not the model's)

import sabiyarn_edge.generator  # noqa: F401
from benchmarks.engines import Facts, random_prompts, spaced
from sabiyarn_edge.bench.engine import Engine as OwnEngine
from sabiyarn_edge.bench.trial import Trial


class Engine(OwnEngine):
    """The engine that `sabiyarn-edge bench` measures."""

    def __init__(self, path: Path, threads: int, positions: int) -> None:
        super().__init__(path, num_threads=threads, max_length=positions)

    def facts(self) -> Facts:  # type: ignore[override]
        own = super().facts()
        return Facts(
            weights=own["dtype"],
            excluded="",
            **{
                name: own[name]
                for name in (
                    "kv_cache_dtype",
                    "threads",
                    "vocab_size",
                    "weight_bytes_per_step",
                    "kv_bytes_per_position",
                )
            },
        )

    def rows(self, count: int, length: int, steps: int, seed: int) -> Trial:
        """Time a batch.

        Its prompts are computed a chunk at a time, and those that are done decode meanwhile. The steps are timed from
        the last prompt's first token on: the first prompt is at most `ahead` tokens ahead then, and has as many more.
        """
        prompts = random_prompts(self.vocab_size, count, length, seed)
        decoder = self.generator._engine.decoder
        ahead = math.ceil(count * length / decoder.max_prefill_chunk)
        session = decoder.runner.graph
        noting = _Noting(session)
        decoder.runner.graph = noting
        started = time.perf_counter()
        try:
            self.generator.generate(
                prompts,
                max_new_tokens=ahead + steps + 1,
                eos_token_id=None,
                reuse_prefix=False,
                prompt_lookup_num_tokens=0,
            )
        finally:
            decoder.runner.graph = session
        first = len(noting.ends) - (ahead + steps) - 1  # the run that gave the last prompt's first token
        stamps, cpu = zip(*noting.ends[first : first + steps + 1], strict=True)
        return Trial(
            prompt_tokens=length,
            first_token_seconds=stamps[0] - started,
            step_seconds=spaced(stamps),
            cpu_seconds=cpu[-1] - cpu[0],
        )


class _Noting:
    """An onnxruntime session that notes when each of its runs has ended.

    Attributes:
        ends: (time, CPU time of the process) of each run, seconds.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.ends: list[tuple[float, float]] = []

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        self._session.run_with_iobinding(binding, options)
        self.ends.append((time.perf_counter(), time.process_time()))
