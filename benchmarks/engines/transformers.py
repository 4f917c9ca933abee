"""transformers' GPT2LMHeadModel on torch: generate() with its cache, float32."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel
from transformers.utils import logging

from benchmarks.engines import Facts, random_prompts, spaced, weight_elements
from sabiyarn_edge.bench.engine import NUM_BEAMS, random_prompt
from sabiyarn_edge.bench.trial import Trial


class Engine:
    def __init__(self, path: Path, threads: int, positions: int) -> None:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self._model = GPT2LMHeadModel.from_pretrained(path).eval()
        self._model.generation_config.eos_token_id = None
        self._vocab_size = self._model.config.vocab_size

    def facts(self) -> Facts:
        config = self._model.config
        shape = {"n_layer": config.n_layer, "n_embd": config.n_embd, "vocab_size": config.vocab_size}
        return Facts(
            weights="float32",
            kv_cache_dtype="float32",
            threads=torch.get_num_threads(),
            vocab_size=self._vocab_size,
            weight_bytes_per_step=4 * weight_elements(shape),
            kv_bytes_per_position=2 * config.n_layer * config.n_embd * 4,
            excluded="the layer norm j, which GPT-2 has not; adds biases (zeros), which GPT-2 has",
        )

    def trial(self, length: int, steps: int, seed: int) -> Trial:
        return self._timed([random_prompt(self._vocab_size, length, seed)], steps)

    def rows(self, count: int, length: int, steps: int, seed: int) -> Trial:
        return self._timed(random_prompts(self._vocab_size, count, length, seed), steps)

    def _timed(self, prompts: list[list[int]], steps: int) -> Trial:
        cpu: list[float] = []
        started = time.perf_counter()
        stamps = self._generate(prompts, steps, cpu, num_beams=1)
        return Trial(
            prompt_tokens=len(prompts[0]),
            first_token_seconds=stamps[0] - started,
            step_seconds=spaced(stamps),
            cpu_seconds=cpu[-1] - cpu[0],
        )

    def beam_step_seconds(self, length: int, steps: int, seed: int) -> float:
        prompts = [random_prompt(self._vocab_size, length, seed)]
        stamps = self._generate(prompts, steps, [], num_beams=NUM_BEAMS)
        return (stamps[-1] - stamps[0]) / (len(stamps) - 1)

    def _generate(
        self, prompts: list[list[int]], steps: int, cpu: list[float], num_beams: int
    ) -> list[float]:
        """When each token was chosen."""
        stamps: list[float] = []

        def note(ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
            stamps.append(time.perf_counter())
            cpu.append(time.process_time())
            return torch.zeros(len(ids), dtype=torch.bool)

        prompt = torch.tensor(prompts)
        self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=steps + 1,
            do_sample=False,
            num_beams=num_beams,
            pad_token_id=0,
            stopping_criteria=[note],
        )
        return stamps
