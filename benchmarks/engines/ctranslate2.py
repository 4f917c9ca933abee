"""CTranslate2's Generator with int8 weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import ctranslate2

from benchmarks.engines import Facts, random_prompts, spaced, weight_elements
from sabiyarn_edge.bench.engine import NUM_BEAMS, random_prompt
from sabiyarn_edge.bench.trial import Trial


class Engine:
    def __init__(self, path: Path, threads: int, positions: int) -> None:
        self._generator = ctranslate2.Generator(
            str(path), device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
        )
        self._threads = threads
        self._shape: dict[str, Any] = json.loads((path / "shape.json").read_text(encoding="utf-8"))

    def facts(self) -> Facts:
        elements = weight_elements(self._shape)
        return Facts(
            weights=self._generator.compute_type,
            kv_cache_dtype="float32",
            threads=self._threads,
            vocab_size=self._shape["vocab_size"],
            weight_bytes_per_step=elements,  # a byte each; one float32 scale per row is less than 1%
            kv_bytes_per_position=2 * self._shape["n_layer"] * self._shape["n_embd"] * 4,
            excluded="the layer norm j, which GPT-2 has not; adds biases (zeros), which GPT-2 has",
        )

    def trial(self, length: int, steps: int, seed: int) -> Trial:
        return self._timed([random_prompt(self._shape["vocab_size"], length, seed)], steps)

    def rows(self, count: int, length: int, steps: int, seed: int) -> Trial:
        return self._timed(random_prompts(self._shape["vocab_size"], count, length, seed), steps)

    def _timed(self, prompts: list[list[int]], steps: int) -> Trial:
        names = [_names(prompt) for prompt in prompts]
        started = time.perf_counter()
        results = self._generator.generate_tokens(
            names, max_length=steps + 1, min_length=steps + 1, sampling_topk=1
        )
        stamps: list[float] = []
        for index, _ in enumerate(results, 1):
            if index == len(prompts):
                cpu = time.process_time()
            if index % len(prompts) == 0:  # a step gives a token of each
                stamps.append(time.perf_counter())
        return Trial(
            prompt_tokens=len(prompts[0]),
            first_token_seconds=stamps[0] - started,
            step_seconds=spaced(stamps),
            cpu_seconds=time.process_time() - cpu,
        )

    def beam_step_seconds(self, length: int, steps: int, seed: int) -> float:
        """Two searches of different length: what the longer one takes more."""
        prompt = _names(random_prompt(self._shape["vocab_size"], length, seed))
        seconds = []
        for count in (1, steps + 1):
            started = time.perf_counter()
            self._generator.generate_batch(
                [prompt],
                beam_size=NUM_BEAMS,
                max_length=count,
                min_length=count,
                include_prompt_in_result=False,
            )
            seconds.append(time.perf_counter() - started)
        return (seconds[1] - seconds[0]) / steps


def _names(prompt: list[int]) -> list[str]:
    return [f"t{token}" for token in prompt]
