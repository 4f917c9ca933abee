"""Handles texts longer than the learned positions: refuse them, slide, or cut the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInputError
from .checks import choice, integer

__all__ = ["OVERFLOW_MODES", "Overflow", "SlidingContext", "cut_prompt"]

OVERFLOW_MODES = ("error", "slide", "truncate_prompt")

_mode = choice(*OVERFLOW_MODES)
_keep_tokens = integer()


@dataclass(frozen=True)
class Overflow:
    """The choice for a prompt and output that need more positions than the model has.

    Raises:
        InvalidInputError: the mode is unknown, or keep_tokens is not an integer of at least 0.
    """

    mode: str = "error"
    """"error": refuse before the first token. "slide": drop the oldest tokens and go on (SlidingContext).
    "truncate_prompt": cut the middle out of the prompt, so that the output fits (cut_prompt)."""
    keep_tokens: int = 0
    """First tokens of the prompt, which are never dropped."""

    def __post_init__(self) -> None:
        _mode("overflow", self.mode)
        object.__setattr__(self, "keep_tokens", _keep_tokens("keep_tokens", self.keep_tokens))

    def take_from(self, options: dict[str, Any]) -> Overflow:
        """Return a copy with the `overflow` and `keep_tokens` of a call. Removes them from its options."""
        return Overflow(options.pop("overflow", self.mode), options.pop("keep_tokens", self.keep_tokens))


@dataclass(frozen=True)
class SlidingContext:
    """The tokens of a growing text that the model sees when generation goes on past its positions.

    The model sees up to `positions` tokens. When one more comes, the oldest half of the tokens behind the first
    `keep_tokens` is dropped, and the rest gets the positions 0, 1, ... anew. A smaller KV window drops more, so that it
    holds the rest. The context is thus a function of the text alone. It costs one run over about half the positions
    for every positions / 2 tokens.

    Raises:
        InvalidInputError: keep_tokens leaves fewer than two positions for the other tokens.
    """

    positions: int
    """Positions of a row."""
    window: int
    """Positions that the KV cache holds at most."""
    keep_tokens: int = 0

    def __post_init__(self) -> None:
        room = min(self.positions, self.window) - 2
        if self.keep_tokens > room:
            raise InvalidInputError(
                f"keep_tokens is {self.keep_tokens}; with {room + 2} positions it must be at most {room}, so that new "
                "tokens find room."
            )

    @property
    def dropped(self) -> int:
        """Tokens that each slide drops."""
        return max((self.positions - self.keep_tokens) // 2, self.positions - self.window)

    def length(self, num_tokens: int) -> int:
        """Return how many tokens the model sees at the last of the first `num_tokens` tokens of a text."""
        surplus = max(num_tokens - self.positions, 0)
        slides = -(-surplus // self.dropped)
        return num_tokens - slides * self.dropped

    def of(self, tokens: Sequence[int]) -> list[int]:
        """Return the tokens that the model sees at the last of `tokens`: the first keep_tokens and the newest."""
        length = self.length(len(tokens))
        if length == len(tokens):
            return list(tokens)
        return [*tokens[: self.keep_tokens], *tokens[len(tokens) - (length - self.keep_tokens) :]]

    def slides_at(self, num_tokens: int) -> bool:
        """Return True if the last of `num_tokens` tokens makes the older ones slide."""
        return num_tokens > self.positions and (num_tokens - 1 - self.positions) % self.dropped == 0

    def until_slide(self, num_tokens: int) -> int:
        """Return the number of tokens from `num_tokens` to the next slide, at least 1."""
        if num_tokens <= self.positions:
            return self.positions + 1 - num_tokens
        return self.dropped - (num_tokens - 1 - self.positions) % self.dropped


def cut_prompt(
    prompt: list[int], *, new_tokens: int, positions: int, window: int, keep_tokens: int
) -> list[int]:
    """Return the prompt's first `keep_tokens` and its tail, so that `new_tokens` more fit into the positions.

    Args:
        window: positions that the KV cache holds at most; the cut prompt is not longer.

    Raises:
        InvalidInputError: no token would be left behind the first keep_tokens.
    """
    room = min(positions - new_tokens, window)
    if len(prompt) <= room:
        return prompt
    if room <= keep_tokens:
        raise InvalidInputError(
            f"the prompt has {len(prompt)} tokens, of which keep_tokens={keep_tokens} must stay, and {new_tokens} new "
            f"tokens are to follow, but there are {positions} positions. Ask for at most "
            f"{max(positions - keep_tokens - 1, 0)} new tokens, or keep fewer."
        )
    return [*prompt[:keep_tokens], *prompt[len(prompt) - (room - keep_tokens) :]]
