"""onnxruntime as it is usually driven: session.run, and np.concatenate of past and present."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.engines import Facts, spaced
from benchmarks.onnxruntime_graph import CONCATENATING_GRAPH
from sabiyarn_edge.bench.engine import random_prompt
from sabiyarn_edge.bench.traffic import weight_bytes_per_step
from sabiyarn_edge.bench.trial import Trial
from sabiyarn_edge.model_folder.config import ModelConfig

CHUNK = (
    512  # prompt tokens at once, as this package takes; in one piece 4000 would need 1.5 GB for scores alone
)


class Engine:
    def __init__(self, path: Path, threads: int, positions: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._folder, self._threads = path, threads
        self._config = ModelConfig.load(path)
        self._session = onnxruntime.InferenceSession(
            str(path / CONCATENATING_GRAPH), options, providers=["CPUExecutionProvider"]
        )

    def facts(self) -> Facts:
        return Facts(
            weights=self._config.dtype,
            kv_cache_dtype=self._config.kv_cache_dtype,
            threads=self._threads,
            vocab_size=self._config.gptjx.vocab_size,
            weight_bytes_per_step=weight_bytes_per_step(self._folder),
            kv_bytes_per_position=self._config.kv_bytes_per_token,
            excluded="",
        )

    def trial(self, length: int, steps: int, seed: int) -> Trial:
        shape = self._config.gptjx
        prompt = random_prompt(shape.vocab_size, length, seed)
        started = time.perf_counter()
        empty = np.zeros((1, shape.n_heads, 0, shape.head_dim), self._config.kv_cache_dtype)
        past = {
            f"past_key_values.{layer}.{side}": empty
            for layer in range(shape.n_layer)
            for side in ("key", "value")
        }
        for begin in range(0, length, CHUNK):
            token = self._run(prompt[begin : begin + CHUNK], begin, past)
        stamps = [time.perf_counter()]
        cpu = time.process_time()
        for step in range(steps):
            token = self._run([token], length + step, past)
            stamps.append(time.perf_counter())
        return Trial(
            prompt_tokens=length,
            first_token_seconds=stamps[0] - started,
            step_seconds=spaced(stamps),
            cpu_seconds=time.process_time() - cpu,
        )

    def _run(self, tokens: list[int], begin: int, past: dict[str, np.ndarray]) -> int:
        count = len(tokens)
        mask = np.triu(np.full((count, begin + count), -np.inf, np.float32), k=begin + 1)
        logits, *present = self._session.run(
            None,
            {
                "input_ids": np.array([tokens], np.int64),
                "position_ids": np.arange(begin, begin + count)[None],
                "logits_index": np.array([count - 1]),
                "attention_mask": mask[None, None],
                **past,
            },
        )
        for name, new in zip(past, present, strict=True):
            past[name] = np.concatenate([past[name], new], axis=2)
        return int(logits[0, -1].argmax())
