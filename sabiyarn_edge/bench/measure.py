"""measure() returns everything that `sabiyarn-edge bench` tells, as one dictionary for JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InvalidInputError
from ..model_folder.config import ModelConfig
from .bandwidth import read_bandwidth
from .engine import NUM_BEAMS, Engine
from .machine import describe_machine
from .statistics import summary
from .trial import Trial, summarize

__all__ = ["EXCLUDED", "LENGTHS", "measure"]

LENGTHS = (16, 128, 1024, 4000)
"""Prompt lengths, tokens."""

EXCLUDED = "tokenizing; the first trial at each prompt length"
"""Time that the figures do not include."""

T = TypeVar("T")

_MEMORY_TOKENS = 256
_WARM_UP_STEPS = 2


def measure(
    folder: Path,
    *,
    lengths: Sequence[int] = LENGTHS,
    steps: int = 16,
    rounds: int = 5,
    seconds: float = 20.0,
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> dict[str, Any]:
    """Measure one model folder in this process.

    Args:
        lengths: prompt lengths; those that do not fit the model's positions are left out and named.
        steps: tokens timed after each prompt.
        rounds: trials of each length; the figures are their medians.
        seconds: begin no further trial of a length after this time; each length has at least one.
        progress: is told what is measured now.
        options: of EdgeGenerator.from_pretrained.

    Raises:
        InvalidInputError: no length fits.
    """
    positions = ModelConfig.load(folder).gptjx.block_size
    fitting = [length for length in lengths if length + steps + 1 <= positions]
    if not fitting:
        longest = positions - steps - 1
        hint = f"a length of at most {longest}" if longest > 0 else f"at most {positions - 2} steps"
        raise InvalidInputError(
            f"prompts of {', '.join(map(str, lengths))} tokens, the first token of the answer and {steps} timed ones "
            f"do not fit the model's {positions} positions. Ask for {hint}."
        )
    progress("loading")
    engine = Engine(folder, **options)
    progress(f"memory after {_MEMORY_TOKENS} tokens")
    prompt = min(16, fitting[0])
    engine.trial(prompt, min(_MEMORY_TOKENS, positions - prompt - 1) - 1, seed=0)
    engine.remember_memory(f"after_{_MEMORY_TOKENS}_tokens")
    trials: dict[int, list[Trial]] = {}
    for length in fitting:
        progress(f"prompts of {length} tokens")
        engine.trial(length, _WARM_UP_STEPS, seed=0)
        trials[length] = _repeated(lambda seed, n=length: engine.trial(n, steps, seed), rounds, seconds)  # type: ignore[misc]
        engine.remember_memory(f"after_prompt_of_{length}")
    beam_length = min(fitting, key=lambda length: abs(length - 128))
    progress(f"{NUM_BEAMS} beams")
    engine.beam_step_seconds(beam_length, _WARM_UP_STEPS, seed=0)
    beams = _repeated(lambda seed: engine.beam_step_seconds(beam_length, steps, seed), rounds, seconds)
    outside = engine.outside_run_seconds(beam_length, max(steps, 2), seed=0)[1:]  # the first one binds
    progress("loading again")
    loads = _repeated(lambda _: engine.load_again(), 3, seconds)
    progress("memory bandwidth")
    facts = engine.facts()
    rates = read_bandwidth(facts["threads"])
    bandwidth = max(rates)
    figures = {
        str(length): summarize(
            found,
            weight_bytes=facts["weight_bytes_per_step"],
            kv_bytes=facts["kv_bytes_per_position"],
            bandwidth=bandwidth,
        )
        for length, found in trials.items()
    }
    return {
        "benchmark": "bench",
        "machine": describe_machine(),
        "bandwidth": {"threads": facts["threads"], "best": bandwidth, **summary(rates)},
        "excluded": EXCLUDED,
        "left_out_lengths": [length for length in lengths if length not in fitting],
        "engines": {
            f"sabiyarn_edge {facts['dtype']}": {
                **facts,
                "load_seconds": summary(loads),
                "outside_run_us": summary([1e6 * s for s in outside]),
                "lengths": figures,
                "beams": {
                    "num_beams": NUM_BEAMS,
                    "prompt_tokens": beam_length,
                    "step_ms": summary([1e3 * s for s in beams]),
                },
            }
        },
    }


def _repeated(one: Callable[[int], T], rounds: int, seconds: float) -> list[T]:
    """Return up to `rounds` results, none begun after `seconds`, but at least one."""
    started, found = time.perf_counter(), [one(1)]
    while len(found) < rounds and time.perf_counter() - started < seconds:
        found.append(one(len(found) + 1))
    return found
