"""Many different calls of one generator, and what they leave behind in the process.

    python -m tests.memory_drift FOLDER [--calls 1000] [--seed 0]

Prints one JSON object: bytes of anonymous memory after the first half of the calls, the most seen after any later
call, and their difference. Half of the calls warm up: buffers have their largest size then.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.memory import process_memory

MODES: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "output_scores": True},
    {"do_sample": True, "temperature": 2.0, "top_p": 0.9, "num_return_sequences": 3, "seed": 1},
    {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 1.2},
    {"num_beams": 3, "do_sample": True, "seed": 2},
    {"prompt_lookup_num_tokens": 4},
    {"overflow": "slide", "keep_tokens": 3},
    {"overflow": "truncate_prompt", "reuse_prefix": False},
]


class Calls:
    """Random calls of every kind."""

    def __init__(self, generator: EdgeGenerator, folder: Path, seed: int) -> None:
        self._generator, self._random = generator, random.Random(seed)
        self._session_file = folder / "drift.session"
        self._positions = generator.max_length
        self._text = [1]
        self._kinds: list[Callable[[], None]] = [self._generate] * 6 + [
            self._stream,
            self._fail,
            self._score,
            self._save_and_load,
            generator.clear_kv_cache,
            generator.free_kv_cache,
        ]

    def one(self) -> None:
        """Make one call."""
        self._random.choice(self._kinds)()

    def _prompt(self) -> list[int]:
        if self._random.random() < 0.3:  # go on with the text, up to a random place
            return self._text[: self._random.randint(1, len(self._text))][: self._positions // 2]
        length = self._random.randint(1, self._positions // 2)
        return [self._random.randrange(self._generator.config.gptjx.vocab_size) for _ in range(length)]

    def _generate(self) -> None:
        mode = self._random.choice(MODES)
        rows = 1 if "prompt_lookup_num_tokens" in mode else self._random.choice([1, 1, 2, 5])
        most = self._positions * (2 if mode.get("overflow") == "slide" else 1) // 2
        result = self._generator.generate(
            [self._prompt() for _ in range(rows)], max_new_tokens=self._random.randint(1, most), **mode
        )
        self._text = result.sequences[0].tolist()

    def _stream(self) -> None:
        with self._generator.stream(self._prompt(), max_new_tokens=20) as stream:
            for _ in range(self._random.randint(1, 20)):
                next(stream)

    def _fail(self) -> None:
        def refuse(ids: Any, scores: Any) -> Any:
            raise ZeroDivisionError

        try:
            self._generator.generate(self._prompt(), max_new_tokens=5, logits_processor=refuse)
        except ZeroDivisionError:
            return
        raise AssertionError("the processor was not called")

    def _score(self) -> None:
        for _ in self._generator.score([self._prompt() for _ in range(3)]):
            pass

    def _save_and_load(self) -> None:
        self._generator.generate(self._prompt(), max_new_tokens=3)
        self._generator.save_session(self._session_file)
        self._generator.load_session(self._session_file)


def anonymous_bytes(generator: EdgeGenerator) -> int:
    """This process's own memory but for keys and values, whose size is that of the last call."""
    generator.free_kv_cache()
    gc.collect()
    return process_memory()["process_anonymous"]


def measure(model: Path, calls: int, seed: int) -> dict[str, int]:
    """Make the calls and look at the memory between those of the second half."""
    generator = EdgeGenerator.from_pretrained(model, num_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        series = Calls(generator, Path(folder), seed)
        for _ in range(calls // 2):
            series.one()
        warm = most = anonymous_bytes(generator)
        for i in range(calls - calls // 2):
            series.one()
            if i % 10 == 9:
                most = max(most, anonymous_bytes(generator))
    return {"calls": calls, "warm_bytes": warm, "most_bytes": most, "drift_bytes": most - warm}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.model, arguments.calls, arguments.seed)))


if __name__ == "__main__":
    main()
