"""Usage: what a request took, for its answer, the metrics and the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import HttpError
from .metrics import Metrics

if TYPE_CHECKING:
    from ..calls.result import GenerationResult

__all__ = ["Usage"]


@dataclass
class Usage:
    """Tokens of a request."""

    prompt: int
    cached: int = 0
    """Of the prompt's: those that were not computed anew."""
    generated: int = 0
    first_token_seconds: float | None = None
    reasons: list[str] = field(default_factory=list)

    def count(
        self,
        result: GenerationResult,
        prompt: int | None,
        metrics: Metrics,
        model: str,
    ) -> None:
        """Count a call that has ended, but for its generated tokens.

        Args:
            prompt: tokens of its prompts; None: they are another call's, and were counted with it.
            metrics: count too.
        """
        timings = result.timings
        if prompt is not None:
            self.cached += timings.reused_tokens
            metrics.cached_tokens[model] += timings.reused_tokens
            metrics.prompt_tokens[model] += prompt
        self.reasons += result.finish_reasons
        if not any(result.generated):
            return  # there is no first token to measure
        metrics.first_token[model].observe(timings.time_to_first_token)
        if timings.decode_tokens:
            mean = timings.decode_seconds * len(result.lengths) / timings.decode_tokens
            metrics.per_token[model].observe(mean, timings.decode_tokens)
        if self.first_token_seconds is None:
            self.first_token_seconds = timings.time_to_first_token

    def check_begun(self, *, own_limit: bool) -> None:
        """Check a request whose calls, or the first of them, were counted.

        Args:
            own_limit: whether each had a row at once, and a max_time of its own below what the server allows.

        Raises:
            HttpError: its time was over before its first token, for want of a row.
        """
        if "time" in self.reasons and not self.generated and not own_limit:
            raise HttpError.later(
                503,
                "the request's time was over before a row was free for it. Try again later.",
                code="timeout",
            )

    def fields(self) -> dict[str, Any]:
        """OpenAI's usage."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": min(self.cached, self.prompt)},
        }

    def note(self, record: dict[str, Any]) -> None:
        """Put it into a request's line of the log."""
        record.update(prompt=self.prompt, cached=self.cached, generated=self.generated)
        if self.first_token_seconds is not None:
            record["first_token"] = self.first_token_seconds
        if self.reasons:
            record["finish"] = ",".join(dict.fromkeys(self.reasons))
