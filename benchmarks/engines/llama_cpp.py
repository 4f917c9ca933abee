"""llama.cpp through the C functions of llama-cpp-python: no tokenizer, no sampler, NumPy's argmax."""

from __future__ import annotations

import ctypes
import json
import re
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.engines import Facts, random_prompts, spaced
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
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        self._threads = threads
        self._shape: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._one = _Sequences(self._model, self._vocab_size, threads, positions, 1)

    def facts(self) -> Facts:
        return Facts(
            weights=self._shape["weights"],
            kv_cache_dtype="float16",
            threads=self._one.threads,
            vocab_size=self._vocab_size,
            weight_bytes_per_step=self._shape["weight_bytes_per_step"],
            kv_bytes_per_position=2 * self._shape["n_layer"] * self._shape["n_embd"] * 2,
            excluded="the layer norm j, which GPT-2 has not; adds biases (zeros), which GPT-2 has",
            build=_instruction_sets(llama_cpp.llama_print_system_info().decode()),
        )

    def trial(self, length: int, steps: int, seed: int) -> Trial:
        return self._one.timed([random_prompt(self._vocab_size, length, seed)], steps)

    def rows(self, count: int, length: int, steps: int, seed: int) -> Trial:
        """Parallel sequences, each with keys and values of its own: its default, and best without a shared prompt."""
        prompts = random_prompts(self._vocab_size, count, length, seed)
        positions = count * (length + steps + 1)
        with closing(_Sequences(self._model, self._vocab_size, self._threads, positions, count)) as sequences:
            return sequences.timed(prompts, steps)


class _Sequences:
    """A context of several sequences; one batch runs tokens of any of them.

    Args:
        positions: of all sequences together.
    """

    def __init__(self, model: Any, vocab_size: int, threads: int, positions: int, count: int) -> None:
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = positions, count
        settings.n_threads, settings.n_threads_batch = threads, threads
        self._context = llama_cpp.llama_init_from_model(model, settings)
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context of {count} sequences, {positions} positions")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._most = llama_cpp.llama_n_batch(self._context)
        self._tokens, self._positions, self._rows, self._one_each = np.ones((4, self._most), np.int32)
        self._wanted = np.zeros(self._most, np.int8)
        places = (ctypes.POINTER(ctypes.c_int32) * self._most)(
            *(_address(self._rows[at:], ctypes.c_int32) for at in range(self._most))
        )
        self._batch = llama_cpp.llama_batch(
            token=_address(self._tokens, ctypes.c_int32),
            pos=_address(self._positions, ctypes.c_int32),
            n_seq_id=_address(self._one_each, ctypes.c_int32),
            seq_id=places,
            logits=_address(self._wanted, ctypes.c_int8),
        )
        self._vocab_size = vocab_size
        self.threads = llama_cpp.llama_n_threads(self._context)

    def timed(self, prompts: Sequence[Sequence[int]], steps: int) -> Trial:
        """Time prompts of one length, and steps of a token of each."""
        length = len(prompts[0])
        started = time.perf_counter()
        llama_cpp.llama_memory_clear(self._memory, True)
        tokens = []
        for row, prompt in enumerate(prompts):
            for begin in range(0, length, self._most):
                part = prompt[begin : begin + self._most]
                self._run(part, range(begin, begin + len(part)), row, logits=1)
            tokens.append(self._greedy(-1))
        stamps = [time.perf_counter()]
        cpu = time.process_time()
        for step in range(steps):
            self._run(tokens, length + step, range(len(tokens)), logits=len(tokens))
            tokens = [self._greedy(row) for row in range(len(tokens))]
            stamps.append(time.perf_counter())
        cpu = time.process_time() - cpu
        for row in range(len(prompts)):
            assert llama_cpp.llama_memory_seq_pos_max(self._memory, row) == length + steps - 1
        return Trial(
            prompt_tokens=length,
            first_token_seconds=stamps[0] - started,
            step_seconds=spaced(stamps),
            cpu_seconds=cpu,
        )

    def _run(self, tokens: Sequence[int], positions: int | range, rows: int | range, *, logits: int) -> None:
        """Run tokens.

        Args:
            positions, rows: of each token, or of all.
            logits: the logits of the last so many are wanted.
        """
        count = self._batch.n_tokens = len(tokens)
        self._tokens[:count], self._positions[:count], self._rows[:count] = tokens, positions, rows
        self._wanted[:count] = np.arange(count) >= count - logits
        if llama_cpp.llama_decode(self._context, self._batch) != 0:
            raise RuntimeError("llama_decode failed")

    def _greedy(self, place: int) -> int:
        """The likeliest token behind a token of the last run; -1: its last one."""
        logits = llama_cpp.llama_get_logits_ith(self._context, place)
        return int(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax())

    def close(self) -> None:
        """Give its memory back."""
        llama_cpp.llama_free(self._context)


def _address(array: np.ndarray, kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def _instruction_sets(info: str) -> str:
    """List the instruction sets that llama.cpp was built for, from its own words: "CPU : AVX2 = 1 | FMA = 1 | ..."."""
    return ", ".join(re.findall(r"(\w+) = 1", info))


@llama_cpp.llama_log_callback
def _silent(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """llama.cpp tells hundreds of lines while it loads."""
