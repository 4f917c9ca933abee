"""Notes on prompts that a model cannot know, where its tasks.json says how they are told."""

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
    """Says at most once that the model cannot know a prompt; a prompt is scored by its first tokens."""

    def __init__(self, generator: EdgeGenerator) -> None:
        self._generator = generator
        self._known = None if generator.tokenizer is None else _known_prompts(generator)

    def check(self, prompts: Callable[[], Sequence[Sequence[int]]]) -> None:
        """Score prompts, and say it if the model cannot know one of them.

        Args:
            prompts: gives the prompts' ids; not called where nothing is to be said.
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
                    f"note: {self._known.note}, and this prompt is none of it: the model expects its tokens with "
                    f"log-probabilities of {score.log_probs.mean():.1f} on average, and its own text's with more than "
                    f"{self._known.least_log_prob:.1f}"
                )
                self._known = None
                return


def _known_prompts(generator: EdgeGenerator) -> KnownPrompts | None:
    try:
        return generator.tasks.known_prompts
    except ModelFolderError:  # a prompt needs no tasks.json; who asks for a task hears of it
        return None
