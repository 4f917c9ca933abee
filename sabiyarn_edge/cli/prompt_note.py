"""The note on a prompt that the model cannot know, where its tasks.json draws the line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import ModelFolderError
from .terminal import say

if TYPE_CHECKING:
    from ..generator import EdgeGenerator
    from ..tasks.known_prompts import KnownPrompts

__all__ = ["PromptNote"]


class PromptNote:
    """Says, at most once, that the model cannot know a prompt."""

    def __init__(self, generator: EdgeGenerator) -> None:
        self._generator = generator
        self._known = None if generator.tokenizer is None else _known_prompts(generator)

    def check(self, prompts: Callable[[], Sequence[Sequence[int]]]) -> None:
        """Score the first tokens of prompts, up to one that the model cannot know.

        Args:
            prompts: gives the prompts' ids; not called if the line is not drawn, or the note is out.
        """
        if self._known is None:
            return
        from ..tasks.known_prompts import SCORED_TOKENS

        for ids in prompts():
            scored = ids[: min(SCORED_TOKENS, self._generator.max_length)]
            if not scored:  # refused when it runs
                continue
            [score] = self._generator.score([scored])
            if not self._known.knows(score.log_probs):
                say(
                    f"note: {self._known.note}, and this prompt is none of it: the mean log-probability of its tokens "
                    f"is {score.log_probs.mean():.2f}, below {self._known.least_log_prob:.2f}"
                )
                self._known = None
                return


def _known_prompts(generator: EdgeGenerator) -> KnownPrompts | None:
    try:
        return generator.tasks.known_prompts
    except ModelFolderError:  # a prompt needs no tasks.json; who asks for a task hears of it
        return None
