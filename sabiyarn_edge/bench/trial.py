"""Trial: one prompt and the tokens after it, timed. Every engine is measured by trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .statistics import summary
from .traffic import step_bytes

__all__ = ["Trial", "summarize"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The timings of one prompt and the tokens after it."""

    prompt_tokens: int
    """Prompt tokens, all of them computed in this trial."""
    first_token_seconds: float
    """From the call to the first chosen token: the prompt's computation and one choice."""
    step_seconds: list[float]
    """From token to token after that."""
    cpu_seconds: float
    """CPU time of all threads of the process during the steps."""


def summarize(
    trials: Sequence[Trial], *, weight_bytes: int, kv_bytes: int, bandwidth: float
) -> dict[str, Any]:
    """Summarize all trials with one prompt length.

    Args:
        weight_bytes: bytes of weights that a step reads.
        kv_bytes: bytes of keys and values that a step reads for each past token.
        bandwidth: read bandwidth of the memory, bytes per second.

    Returns:
        For JSON: decode_ms (summary), first_token_ms (summary), prefill_tokens_per_second,
        cpu_seconds_per_100_tokens, floor_ms (of a step, from the bandwidth) and fraction_of_bandwidth.
    """
    steps = [1e3 * seconds for trial in trials for seconds in trial.step_seconds]
    past = trials[0].prompt_tokens + len(trials[0].step_seconds) // 2  # in the middle of the steps
    decode = summary(steps)
    first = summary([1e3 * trial.first_token_seconds for trial in trials])
    floor = 1e3 * step_bytes(weight_bytes, kv_bytes, past) / bandwidth
    return {
        "decode_ms": decode,
        "first_token_ms": first,
        "prefill_tokens_per_second": 1e3 * trials[0].prompt_tokens / first["median"],
        "cpu_seconds_per_100_tokens": 100 * sum(trial.cpu_seconds for trial in trials) / len(steps),
        "floor_ms": floor,
        "fraction_of_bandwidth": floor / decode["median"],
    }
