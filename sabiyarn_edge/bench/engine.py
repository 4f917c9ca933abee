"""Engine times loading, prompts, steps and beams of an EdgeGenerator through its public methods."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from ..options.generation_config import GenerationConfig
from .footprint import footprint, forget_peak
from .timed_session import timed
from .traffic import weight_bytes_per_step
from .trial import Trial

__all__ = ["Engine", "random_prompt"]

NUM_BEAMS = 5


def random_prompt(vocab_size: int, length: int, seed: int) -> list[int]:
    """Return random token ids. Every engine gets the same ones."""
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocab_size, length)]


class Engine:
    """Our own engine under test.

    Args:
        folder: an exported model folder.
        options: of EdgeGenerator.from_pretrained.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        started = time.perf_counter()
        import onnxruntime  # noqa: F401  (its memory and time are not the model's)

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
        """Return what does not change between trials, ready for JSON."""
        config = self.generator.config
        return {
            "dtype": config.dtype,
            "kv_cache_dtype": config.kv_cache_dtype,
            "threads": self.generator._engine.decoder.num_threads,
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
        """Record the current memory under `name`."""
        self.memory[name] = footprint()

    def trial(self, length: int, steps: int, seed: int) -> Trial:
        """Time a random prompt and `steps` greedy tokens after the first, as `stream` gives them."""
        prompt = random_prompt(self.vocab_size, length, seed)
        started = time.perf_counter()
        stream = self.generator.stream(prompt, _greedy(steps + 1), reuse_prefix=False)
        next(stream)
        stamps = [time.perf_counter()]
        cpu = time.process_time()
        for _ in stream:
            stamps.append(time.perf_counter())
        cpu = time.process_time() - cpu
        return Trial(
            prompt_tokens=length,
            first_token_seconds=stamps[0] - started,
            step_seconds=[float(seconds) for seconds in np.diff(stamps)],
            cpu_seconds=cpu,
        )

    def outside_run_seconds(self, length: int, steps: int, seed: int) -> list[float]:
        """Return the seconds of each step outside onnxruntime: choosing the token, and all bookkeeping."""
        prompt = random_prompt(self.vocab_size, length, seed)
        with timed(self.generator._engine.decoder) as session:
            self.generator.generate(prompt, _greedy(steps + 1), reuse_prefix=False)
        return session.between_runs()[-steps:]

    def load_again(self) -> float:
        """Return the seconds of a warm load: onnxruntime is imported and the files are cached."""
        from ..generator import EdgeGenerator

        started = time.perf_counter()
        EdgeGenerator.from_pretrained(self.folder, **self._options)
        return time.perf_counter() - started

    def beam_step_seconds(self, length: int, steps: int, seed: int) -> float:
        """Return the mean time of a step of 5-beam search, seconds."""
        prompt = random_prompt(self.vocab_size, length, seed)
        config = _greedy(steps + 1).updated(num_beams=NUM_BEAMS)
        timings = self.generator.generate(prompt, config, reuse_prefix=False).timings
        return timings.decode_seconds / timings.decode_tokens


def _greedy(new_tokens: int) -> GenerationConfig:
    """Greedy, one token per run: random models write texts that repeat, and guesses would hide a step's time."""
    return GenerationConfig(max_new_tokens=new_tokens, prompt_lookup_num_tokens=0)
