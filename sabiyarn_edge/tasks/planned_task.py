"""PlannedTask: one call of a task, as the prompts that it comes to and the way in which their answers are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._core import derived_seed
from ..errors import InvalidInputError, shown
from ..options.generation_config import GenerationConfig
from ..options.overflow import Overflow
from ..text.tokenizer import Tokenizer
from .answers import Classification, Entity, Word, read_entities, split_words
from .task import TEXT_SLOT, Task
from .units import split_units

__all__ = ["PlannedTask", "TaskModel"]

MAX_ROWS = 32
"""Rows that a task runs at once: prompts times beams."""

TAG_TOKENS = 4
"""Room for one word's tag: " B-PER" is up to four tokens."""


class TaskModel(Protocol):
    """What planning needs of an EdgeGenerator."""

    tokenizer: Tokenizer | None
    _settings: Any

    @property
    def generation_config(self) -> GenerationConfig: ...
    @property
    def max_length(self) -> int: ...
    @property
    def overflow(self) -> Overflow: ...


@dataclass(frozen=True)
class _Piece:
    """A part of a text: a unit to run, or white space to keep."""

    text: str
    start: int
    """Index of its first character in the text."""
    is_unit: bool
    words: tuple[Word, ...] = ()
    """With answer "tags"."""


class PlannedTask:
    """A checked call of a task: whoever runs its prompts gets its answers from `written`, `tagged` or `classified`.

    Args:
        model: a generator with a tokenizer.
        rows: the slots of each text, checked.
        labels: with answer "label": as TaskRunner.plan.
        options: of GenerationConfig, on top of the task's.
        special_tokens: read special tokens in what fills the slots as such.

    Raises:
        InvalidInputError: an argument is not allowed.
    """

    def __init__(
        self,
        model: TaskModel,
        task: Task,
        rows: Sequence[dict[str, str]],
        labels: Sequence[str] | None,
        options: Mapping[str, Any],
        special_tokens: bool,
    ) -> None:
        if model.tokenizer is None:
            raise InvalidInputError(
                "tasks need a tokenizer, but the model folder has none. Put the model's tokenizer.json into it."
            )
        self._model, self.task = model, task
        self._tokenizer: Tokenizer = model.tokenizer
        self._special_tokens = special_tokens
        base = model.generation_config.updated(**task.options)
        self._config = base.updated(**options)
        self._length_is_given = "max_new_tokens" in options or "max_length" in options
        if self._config.num_return_sequences > 1:
            raise InvalidInputError(
                f"num_return_sequences is {self._config.num_return_sequences}, but a task gives one answer for each "
                "text. Leave it out."
            )
        self.prompts: list[tuple[list[int], GenerationConfig]] = []
        """Ids and options of each prompt, text by text."""
        self.choices: list[list[int]] = []
        """With answer "label": the ids of each label, which are to be scored behind each prompt."""
        self._labels: tuple[str, ...] = ()
        self._pieces: list[list[_Piece]] = []
        if task.answer == "label":
            self._labels = _check_labels(task, labels)
            self.choices = [self._label_tokens(label) for label in self._labels]
            self.prompts = [(self._prompt({**row, **self._whole(row)}), self._config) for row in rows]
        elif labels is not None:
            raise InvalidInputError(f"the task {task.name} takes no labels.")
        else:
            self._pieces = [self._cut(row) for row in rows]
            self.prompts = [
                self._with_config(self._prompt({**row, **self._unit_slots(piece)}), place, index, len(rows))
                for index, row in enumerate(rows)
                for place, piece in enumerate(self._units(index))
            ]

    @property
    def num_texts(self) -> int:
        """How many answers it gives."""
        return len(self._pieces) if self.task.answer != "label" else len(self.prompts)

    @property
    def max_in_flight(self) -> int:
        """Most prompts to run at once."""
        most: int = self._model._settings.max_batch_size or MAX_ROWS
        return max(min(most, MAX_ROWS) // self._config.num_beams, 1)

    @property
    def num_beams(self) -> int:
        """Beams of each prompt."""
        return self._config.num_beams

    def read(self, answer: str) -> str:
        """What counts of a prompt's answer."""
        return answer if self.task.answer == "raw" else answer.strip()

    def layout(self) -> list[list[str | None]]:
        """Of each text what its answer is made of, in order: None for the next prompt's answer, or white space."""
        return [[None if piece.is_unit else piece.text for piece in pieces] for pieces in self._pieces]

    def written(self, answers: Sequence[str]) -> list[str]:
        """The answer of each text.

        Args:
            answers: of all prompts.
        """
        answered = map(self.read, answers)
        return [
            "".join(next(answered) if part is None else part for part in parts) for parts in self.layout()
        ]

    def tagged(self, answers: Sequence[str]) -> list[list[Entity]]:
        """The entities of each text. Args: as `written`."""
        answered, found = iter(answers), []
        for index in range(len(self._pieces)):
            entities: list[Entity] = []
            for piece in self._units(index):
                entities += read_entities(piece.text, piece.words, next(answered).split(), piece.start)
            found.append(entities)
        return found

    def classified(self, scores: Sequence[NDArray[np.float64]]) -> list[Classification]:
        """How likely each label is for each text.

        A label's log-probability is that of its tokens and of the end token behind them, so that a label with which
        another one begins does not have that one's probability too.

        Args:
            scores: of each prompt, the log-probability of each choice.
        """
        found = []
        for own in scores:
            likelihoods = np.exp(own - own.max())
            shares = (likelihoods / likelihoods.sum()).tolist()
            ranked = sorted(zip(self._labels, shares, strict=True), key=lambda pair: -pair[1])
            found.append(Classification(dict(ranked)))
        return found

    # --- inside

    def _units(self, index: int) -> Iterator[_Piece]:
        return (piece for piece in self._pieces[index] if piece.is_unit)

    def _cut(self, row: dict[str, str]) -> list[_Piece]:
        """The row's text, cut into units; without one, a single unit."""
        if TEXT_SLOT not in self.task.text_slots:
            return [_Piece("", 0, True)]
        if self.task.unit == "text" and self.task.answer != "tags":
            return [_Piece(row[TEXT_SLOT], 0, True)]
        pieces, start = [], 0
        for text, is_unit in split_units(row[TEXT_SLOT], self.task.unit, lambda text: self._fits(row, text)):
            words = tuple(split_words(text)) if is_unit and self.task.answer == "tags" else ()
            pieces.append(_Piece(text, start, is_unit, words))
            start += len(text)
        return pieces

    def _unit_slots(self, piece: _Piece) -> dict[str, str]:
        if TEXT_SLOT not in self.task.text_slots:
            return {}
        if self.task.answer == "tags":
            return {TEXT_SLOT: " ".join(word.text for word in piece.words)}
        return self._shortened(piece.text)

    def _whole(self, row: dict[str, str]) -> dict[str, str]:
        return self._shortened(row[TEXT_SLOT]) if TEXT_SLOT in row else {}

    def _shortened(self, text: str) -> dict[str, str]:
        """The slot "text", cut to max_words."""
        words = text.split() if self.task.max_words is not None else []
        short = self.task.max_words is not None and len(words) > self.task.max_words
        return {TEXT_SLOT: " ".join(words[: self.task.max_words]) if short else text}

    def _fits(self, row: dict[str, str], text: str) -> bool:
        """Whether a unit leaves room for its answer: max_new_tokens, or half of the positions if that is less."""
        positions = self._model.max_length
        answer = min(self._config.max_new_tokens or positions // 2, positions // 2)
        unit = _Piece(text, 0, True, tuple(split_words(text)) if self.task.answer == "tags" else ())
        if len(unit.words) * TAG_TOKENS > answer:
            return False
        return len(self._prompt({**row, **self._unit_slots(unit)})) + answer <= positions

    def _prompt(self, row: dict[str, str]) -> list[int]:
        for slot in self.task.text_slots:
            if not row[slot].strip():
                raise InvalidInputError(f"{slot} is empty. Give at least a word.")
        raw = self.task.answer == "raw"  # what follows a blank is not what follows the word before it
        values = {slot: text if raw else text.strip() for slot, text in row.items()}
        trusted = self.task.template.slots if self._special_tokens else self.task.languages
        return self._tokenizer.encode_parts(self.task.template.fill(values, trusted))

    def _label_tokens(self, label: str) -> list[int]:
        trusted = ("label",) if self.task.labels or self._special_tokens else ()
        ids = self._tokenizer.encode_parts(
            self.task.label_template.fill({"label": label}, trusted), add_special_tokens=False
        )
        return [*ids, *self._config.eos_token_ids[:1]]

    def _with_config(
        self, prompt: list[int], place: int, index: int, num_texts: int
    ) -> tuple[list[int], GenerationConfig]:
        """A prompt and its options: a seed of its own, and no more new tokens than there is room for."""
        config, changes = self._config, {}
        if config.do_sample and config.seed is not None:
            if not isinstance(config.seed, int) and len(config.seed) != num_texts:
                raise InvalidInputError(
                    f"seed holds {len(config.seed)} seeds for {num_texts} texts. Give one seed, or one for each text."
                )
            own = derived_seed(config.seed, index) if isinstance(config.seed, int) else config.seed[index]
            changes["seed"] = derived_seed(own, place)
        room = self._model.max_length - len(prompt)
        wanted = config.max_new_tokens or 1
        if self._model.overflow.mode == "error" and room < (wanted if self._length_is_given else 1):
            raise InvalidInputError(
                f"text {index} makes a prompt of {len(prompt)} tokens, and its answer needs {wanted}: more than the "
                f"{self._model.max_length} positions. Give a shorter text."
            )
        if not self._length_is_given and self._model.overflow.mode != "slide" and 0 < room < wanted:
            changes["max_new_tokens"] = room
        return prompt, config.updated(**changes)


def _check_labels(task: Task, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        if task.labels:
            return task.labels
        raise InvalidInputError(f"the task {task.name} has no labels of its own. Give a list of labels.")
    if task.labels:
        raise InvalidInputError(f"the task {task.name} has labels of its own: {', '.join(task.labels)}.")
    if isinstance(given, str):
        raise InvalidInputError(f"labels is {shown(given)}; it must be a list of labels.")
    labels = tuple(given)
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise InvalidInputError(f"labels[{index}] is {shown(label)}; it must be a text.")
        if label in labels[:index]:
            raise InvalidInputError(
                f"labels[{index}] is {shown(label)}, which the list has already. Give it once."
            )
    if len(labels) < 2:
        raise InvalidInputError(f"{len(labels)} label is no choice. Give at least two.")
    return labels
