"""KnownPrompts tells prompts that a model can know from others, by how likely it finds their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SCORED_TOKENS", "KnownPrompts"]

SCORED_TOKENS = 256
"""First tokens of a prompt that are scored: enough to know it, and few enough to be cheap."""


@dataclass(frozen=True)
class KnownPrompts:
    """A threshold, measured on the model's own text and on others."""

    least_log_prob: float
    """Mean log-probability of a prompt's tokens but the first, nats, from which on the prompt is known."""
    note: str
    """What to say about any other prompt: one clause."""

    def knows(self, log_probs: NDArray[np.float32]) -> bool:
        """Return True if a prompt is known.

        Args:
            log_probs: [tokens - 1], of the prompt's tokens but the first; of a single token nothing can be said.
        """
        return len(log_probs) == 0 or float(log_probs.mean(dtype="float64")) >= self.least_log_prob
