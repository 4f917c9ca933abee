"""onnxruntime-genai on the same model in onnxruntime's operators; past and present share a buffer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai

from benchmarks.engines import Facts, random_prompts, spaced
from sabiyarn_edge.bench.engine import random_prompt
from sabiyarn_edge.bench.trial import Trial


class Engine:
    def __init__(self, path: Path, threads: int, positions: int) -> None:
        self._facts: dict[str, Any] = json.loads((path / "facts.json").read_text(encoding="utf-8"))
        config = onnxruntime_genai.Config(str(path))
        config.overlay(
            json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}})
        )
        self._model = onnxruntime_genai.Model(config)
        self._threads = threads

    def facts(self) -> Facts:
        return Facts(
            **self._facts,
            threads=self._threads,
            excluded="beams: they cannot share the buffer of past and present",
        )

    def trial(self, length: int, steps: int, seed: int) -> Trial:
        return self._timed([random_prompt(self._facts["vocab_size"], length, seed)], steps)

    def rows(self, count: int, length: int, steps: int, seed: int) -> Trial:
        return self._timed(random_prompts(self._facts["vocab_size"], count, length, seed), steps)

    def _timed(self, prompts: list[list[int]], steps: int) -> Trial:
        length = len(prompts[0])
        started = time.perf_counter()
        params = onnxruntime_genai.GeneratorParams(self._model)
        params.set_search_options(max_length=length + steps + 2, do_sample=False, batch_size=len(prompts))
        generator = onnxruntime_genai.Generator(self._model, params)
        generator.append_tokens(np.array(prompts, np.int32))
        generator.generate_next_token()
        stamps = [time.perf_counter()]
        cpu = time.process_time()
        for _ in range(steps):
            generator.generate_next_token()
            stamps.append(time.perf_counter())
        cpu = time.process_time() - cpu
        assert generator.token_count() == length + steps + 1
        return Trial(
            prompt_tokens=length,
            first_token_seconds=stamps[0] - started,
            step_seconds=spaced(stamps),
            cpu_seconds=cpu,
        )
