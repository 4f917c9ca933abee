"""Turn: one prompt and some tokens after it, timed. What every engine is measured by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .statistics import summary
from .traffic import step_bytes

__all__ = ["Turn", "summarize"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One prompt of an engine."""

    prompt_tokens: int
    """Of the prompt, all of them computed in this turn."""
    first_token_seconds: float
    """From the call to the first chosen token: the prompt's computation and one choice."""
    step_seconds: list[float]
    """From token to token after that."""
    cpu_seconds: float
    """CPU time of all threads of the process during the steps."""


def summarize(turns: Sequence[Turn], *, weight_bytes: int, kv_bytes: int, bandwidth: float) -> dict[str, Any]:
    """The figures of all turns with one prompt length.

    Args:
        weight_bytes, kv_bytes: what a step reads, and reads for each past token.
        bandwidth: of the memory, bytes per second.

    Returns:
        For JSON: decode_ms (summary), first_token_ms (summary), prefill_tokens_per_second,
        cpu_seconds_per_100_tokens, floor_ms (of a step, from the bandwidth) and fraction_of_bandwidth.
    """
    steps = [1e3 * seconds for turn in turns for seconds in turn.step_seconds]
    past = turns[0].prompt_tokens + len(turns[0].step_seconds) // 2  # in the middle of the steps
    decode = summary(steps)
    first = summary([1e3 * turn.first_token_seconds for turn in turns])
    floor = 1e3 * step_bytes(weight_bytes, kv_bytes, past) / bandwidth
    return {
        "decode_ms": decode,
        "first_token_ms": first,
        "prefill_tokens_per_second": 1e3 * turns[0].prompt_tokens / first["median"],
        "cpu_seconds_per_100_tokens": 100 * sum(turn.cpu_seconds for turn in turns) / len(steps),
        "floor_ms": floor,
        "fraction_of_bandwidth": floor / decode["median"],
    }
