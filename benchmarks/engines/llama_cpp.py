"""llama.cpp through the C functions of llama-cpp-python: no tokenizer, no sampler, NumPy's argmax."""

from __future__ import annotations

import ctypes
import json
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.engines import Facts, spaced
from sabiyarn_edge.bench.engine import random_prompt
from sabiyarn_edge.bench.trial import Trial


class Engine:
    """Defaults (memory-mapped weights, 512 tokens at once, float16 keys and values) but for threads and positions."""

    def __init__(self, path: Path, threads: int, positions: int) -> None:
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_default_params()
        model.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model)
        context = llama_cpp.llama_context_default_params()
        context.n_ctx, context.n_threads, context.n_threads_batch = positions, threads, threads
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        if not self._context:
            raise RuntimeError(f"llama.cpp does not load {path}")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._most = llama_cpp.llama_n_batch(self._context)
        self._shape: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)

    def facts(self) -> Facts:
        return Facts(
            weights=self._shape["weights"],
            kv_cache_dtype="float16",
            threads=llama_cpp.llama_n_threads(self._context),
            vocab_size=self._vocab_size,
            weight_bytes_per_step=self._shape["weight_bytes_per_step"],
            kv_bytes_per_position=2 * self._shape["n_layer"] * self._shape["n_embd"] * 2,
            excluded="the layer norm j, which GPT-2 has not; adds biases (zeros), which GPT-2 has",
        )

    def trial(self, length: int, steps: int, seed: int) -> Trial:
        prompt = random_prompt(self._vocab_size, length, seed)
        started = time.perf_counter()
        llama_cpp.llama_memory_clear(self._memory, True)
        for begin in range(0, length, self._most):
            self._run(prompt[begin : begin + self._most])
        token = self._greedy()
        stamps = [time.perf_counter()]
        cpu = time.process_time()
        for _ in range(steps):
            self._run([token])
            token = self._greedy()
            stamps.append(time.perf_counter())
        cpu = time.process_time() - cpu
        assert llama_cpp.llama_memory_seq_pos_max(self._memory, 0) == length + steps - 1
        return Trial(
            prompt_tokens=length,
            first_token_seconds=stamps[0] - started,
            step_seconds=spaced(stamps),
            cpu_seconds=cpu,
        )

    def _run(self, tokens: list[int]) -> None:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(array, len(tokens))) != 0:
            raise RuntimeError("llama_decode failed")

    def _greedy(self) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax())


@llama_cpp.llama_log_callback
def _silent(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """llama.cpp tells hundreds of lines while it loads."""
