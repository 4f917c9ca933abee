"""PlannedTask: one call of a task for some texts: its prompts, and the way in which their answers are read."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..options.generation_config import GenerationConfig
from .answers import Classification, Entity
from .task_call import TaskCall

__all__ = ["PlannedTask"]


class PlannedTask:
    """Whoever runs its prompts gets its answers from `answers` or `classified`.

    Args:
        call: the task and its options.
        rows: the slots of each text, checked.

    Raises:
        InvalidInputError: a text is empty, or too long; whatever is refused is refused here.
    """

    def __init__(self, call: TaskCall, rows: Sequence[Mapping[str, str]]) -> None:
        self.call, self.task = call, call.task
        self.prompts: list[tuple[list[int], GenerationConfig]] = []
        """Ids and options of each prompt, text by text."""
        self.choices: list[list[int]] = []
        """With answer "label": the ids of each label, which are to be scored behind each prompt."""
        if self.task.answer == "label":
            self.prompts = [(call.whole_prompt(row), call.config) for row in rows]
            self.choices = call.label_choices()
            return
        seeds = call.seeds(len(rows))
        self._prepared = [
            call.prepare(row, seed=seed, index=index)
            for index, (row, seed) in enumerate(zip(rows, seeds, strict=True))
        ]
        self.prompts = [prompt for text in self._prepared for prompt in text.prompts]

    @property
    def num_texts(self) -> int:
        """How many answers it gives."""
        return len(self.prompts) if self.task.answer == "label" else len(self._prepared)

    def layout(self) -> list[list[str | None]]:
        """Of each text what its answer is made of, in order: None for the next prompt's answer, or white space."""
        return [[None if piece.is_unit else piece.text for piece in text.pieces] for text in self._prepared]

    def answers(self, texts: Sequence[str]) -> list[str | list[Entity]]:
        """The answer of each text: a text, or its entities.

        Args:
            texts: what the model gave for each prompt.
        """
        given = iter(texts)
        return [
            self.call.answer(text, list(itertools.islice(given, len(text.prompts))))
            for text in self._prepared
        ]

    def classified(self, scores: Sequence[NDArray[np.float64]]) -> list[Classification]:
        """How likely each label is for each text.

        Args:
            scores: of each prompt, the log-probability of each choice.
        """
        return [self.call.classification(own) for own in scores]
