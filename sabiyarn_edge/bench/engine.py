"""Engine: an EdgeGenerator whose loading, prompts, steps and beams are timed through its public methods."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from ..options.generation_config import GenerationConfig
from .footprint import footprint, forget_peak
from .timed_session import timed
from .traffic import weight_bytes_per_step
from .turn import Turn

__all__ = ["Engine", "random_prompt"]

NUM_BEAMS = 5


def random_prompt(vocab_size: int, length: int, seed: int) -> list[int]:
    """Token ids; every engine gets the same ones."""
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocab_size, length)]


class Engine:
    """Our own engine under test.

    Args:
        folder: an exported model folder.
        options: of EdgeGenerator.from_pretrained.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        started = time.perf_counter()
        import onnxruntime  # noqa: F401  (its own memory and time are not the model's)

        from ..generator import EdgeGenerator

        self.import_seconds = time.perf_counter() - started
        self.memory = {"imported": footprint()}
        forget_peak()
        started = time.perf_counter()
        self.generator = EdgeGenerator.from_pretrained(folder, **options)
        self.first_load_seconds = time.perf_counter() - started
        self.memory["loaded"] = footprint()
        forget_peak()  # from here on it is that of running
        self.folder, self._options = folder, options
        self.vocab_size = self.generator.config.gptjx.vocab_size

    def facts(self) -> dict[str, Any]:
        """What does not change from turn to turn, ready for JSON."""
        config = self.generator.config
        return {
            "dtype": config.dtype,
            "kv_cache_dtype": config.kv_cache_dtype,
            "threads": self.generator._session.num_threads,
            "vocab_size": self.vocab_size,
            "positions": config.gptjx.block_size,
            "disk_bytes": sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file()),
            "weight_bytes_per_step": weight_bytes_per_step(self.folder),
            "kv_bytes_per_position": config.kv_bytes_per_token,
            "import_seconds": self.import_seconds,
            "first_load_seconds": self.first_load_seconds,
            "memory": self.memory,
        }

    def remember_memory(self, name: str) -> None:
        """Note the memory as it is now."""
        self.memory[name] = footprint()

    def turn(self, length: int, steps: int, seed: int) -> Turn:
        """A random prompt and `steps` greedy tokens after the first, as `stream` gives them."""
        prompt = random_prompt(self.vocab_size, length, seed)
        started = time.perf_counter()
        stream = self.generator.stream(prompt, _greedy(steps + 1), reuse_prefix=False)
        next(stream)
        stamps = [time.perf_counter()]
        cpu = time.process_time()
        for _ in stream:
            stamps.append(time.perf_counter())
        cpu = time.process_time() - cpu
        return Turn(
            prompt_tokens=length,
            first_token_seconds=stamps[0] - started,
            step_seconds=[float(seconds) for seconds in np.diff(stamps)],
            cpu_seconds=cpu,
        )

    def outside_run_seconds(self, length: int, steps: int, seed: int) -> list[float]:
        """Of each step, what is not spent inside onnxruntime: choosing the token, and all bookkeeping."""
        prompt = random_prompt(self.vocab_size, length, seed)
        with timed(self.generator._session) as session:
            stream = self.generator.stream(prompt, _greedy(steps + 1), reuse_prefix=False)
            next(stream)
            found, before, inside = [], time.perf_counter(), session.seconds
            for _ in stream:
                now = time.perf_counter()
                found.append(now - before - (session.seconds - inside))
                before, inside = now, session.seconds
        return found

    def load_again(self) -> float:
        """Seconds that loading takes once onnxruntime is imported and the weights are packed."""
        from ..generator import EdgeGenerator

        started = time.perf_counter()
        EdgeGenerator.from_pretrained(self.folder, **self._options)
        return time.perf_counter() - started

    def beam_step_seconds(self, length: int, steps: int, seed: int) -> float:
        """Mean time of a step of 5-beam search."""
        prompt = random_prompt(self.vocab_size, length, seed)
        config = _greedy(steps + 1).updated(num_beams=NUM_BEAMS)
        timings = self.generator.generate(prompt, config, reuse_prefix=False).timings
        return timings.decode_seconds / timings.decode_tokens


def _greedy(new_tokens: int) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=new_tokens)
