"""PrefillPace: how many prompt tokens a step may take while several callers wait for tokens."""

from __future__ import annotations

__all__ = ["PrefillPace"]

DELAY_SECONDS = 0.1
"""How long a step's prompt tokens may keep others waiting for their next token, or their first."""
FIRST_TOKENS = 64
"""Before a run has been timed."""
LEAST_TOKENS = 16
"""A prompt goes on at least so fast: fewer tokens take nearly as long, since each run reads all weights."""


class PrefillPace:
    """Learns from each run how many tokens this device computes in DELAY_SECONDS."""

    def __init__(self) -> None:
        self.tokens = FIRST_TOKENS
        """Prompt tokens that a step may take."""

    def record(self, prompt_tokens: int, steps: int, seconds: float) -> None:
        """Take a run into account. A short one tells little of a token's time, and is passed over.

        Args:
            prompt_tokens: in the run.
            steps: rows that ran their next token in it.
            seconds: how long it took.
        """
        if 2 * prompt_tokens < self.tokens or seconds <= 0.0:
            return
        affordable = int(DELAY_SECONDS * (prompt_tokens + steps) / seconds)
        # The mean of old and new: one slow run, of a busy machine, does not hold up the next prompts.
        self.tokens = max((self.tokens + affordable) // 2, LEAST_TOKENS)
