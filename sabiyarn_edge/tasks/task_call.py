"""TaskCall: one task with its options, for texts that come one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._core import derived_seed
from ..errors import InvalidInputError, shown
from ..options import checks as check
from ..options.generation_config import GenerationConfig, OptionWarning
from ..options.overflow import Overflow
from ..system.caller_warning import warn_caller
from ..system.json_text import json_kind
from ..text.tokenizer import Tokenizer
from .answers import Classification, Entity, Word, read_entities, split_words
from .slots import read_slots
from .task import TEXT_SLOT, Task
from .units import split_units

__all__ = ["PreparedText", "TaskCall", "TaskModel", "was_cut"]

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
class Piece:
    """A part of a text: a unit to run, or white space to keep."""

    text: str
    start: int
    """Index of its first character in the text."""
    is_unit: bool
    words: tuple[Word, ...] = ()
    """With answer "tags"."""


@dataclass(frozen=True)
class PreparedText:
    """One text of a task, before the model has run: its pieces, and a prompt for each unit."""

    pieces: list[Piece]
    prompts: list[tuple[list[int], GenerationConfig]]


class TaskCall:
    """One task with its options.

    Args:
        model: a generator with a tokenizer.
        options: of GenerationConfig, on top of the task's.
        labels: with answer "label": the labels to choose from; None: the task's.
        special_tokens: read special tokens in what fills the slots as such.
    """

    def __init__(
        self,
        model: TaskModel,
        task: Task,
        options: Mapping[str, Any],
        labels: Sequence[str] | None,
        special_tokens: bool,
    ) -> None:
        if model.tokenizer is None:
            raise InvalidInputError(
                "tasks need a tokenizer, but the model folder has none. Put the model's tokenizer.json into it."
            )
        self._model, self.task = model, task
        self._labels = _read_labels(task, labels)
        self._tokenizer: Tokenizer = model.tokenizer
        self._special_tokens = special_tokens
        base = model.generation_config.updated(**task.options)
        self.config = base.updated(**options)
        """The options of all its prompts."""
        if task.answer == "label" and (unused := sorted(options.keys() - {"eos_token_id"})):
            warn_caller(
                f"the task {task.name} scores its labels and generates nothing, so these options change nothing: "
                f"{', '.join(unused)}.",
                OptionWarning,
            )
        self._length_is_given = "max_new_tokens" in options or "max_length" in options
        if self.config.num_return_sequences > 1:
            raise InvalidInputError(
                f"num_return_sequences is {self.config.num_return_sequences}, but a task gives one answer for each "
                "text. Leave it out."
            )

    # --- texts one by one

    def row(self, slots: Mapping[str, Any]) -> dict[str, str]:
        """What fills the template for one text, checked. Raises: InvalidInputError."""
        for slot, value in slots.items():
            if not isinstance(value, str):
                raise InvalidInputError(f"{slot} is {json_kind(value)}; it must be one string.")
        return read_slots(self.task, slots)[0][0]

    def prepare(self, row: Mapping[str, str], *, seed: int | None = None, index: int = 0) -> PreparedText:
        """Cut a text into units and write a prompt for each.

        Args:
            row: what fills the template.
            seed: of the text, where tokens are drawn; None: others each time.
            index: of the text, for messages.

        Raises:
            InvalidInputError: the text is empty, or too long.
        """
        pieces = self._pieces(row)
        units = [piece for piece in pieces if piece.is_unit]
        return PreparedText(
            pieces,
            [
                self._with_config(self._prompt({**row, **self._unit_slots(piece)}), place, index, seed)
                for place, piece in enumerate(units)
            ],
        )

    def answer(self, prepared: PreparedText, texts: Sequence[str]) -> str | list[Entity]:
        """Join what the model gave for the units of a text.

        Args:
            texts: one for each prompt.
        """
        answers = texts if self.task.answer == "raw" else [text.strip() for text in texts]
        pieces = prepared.pieces
        if self.task.answer == "tags":
            entities: list[Entity] = []
            units = (piece for piece in pieces if piece.is_unit)
            for piece, answer in zip(units, answers, strict=True):
                entities += read_entities(piece.text, piece.words, answer.split(), piece.start)
            return entities
        kept = (piece.text for piece in pieces if not piece.is_unit)
        answered = iter(answers)
        return "".join(next(answered) if piece.is_unit else next(kept) for piece in pieces)

    def whole_prompt(self, row: Mapping[str, str]) -> list[int]:
        """The prompt of a text that is not cut into units. Raises: InvalidInputError."""
        return self._prompt({**row, **(self._shortened(row[TEXT_SLOT]) if TEXT_SLOT in row else {})})

    def label_choices(self) -> list[list[int]]:
        """With answer "label": the tokens of each label.

        A label ends with the end token, so that a label with which another one begins does not have that one's
        probability too.
        """
        return [self._label_tokens(label) for label in self._labels]

    def classification(self, log_probs: NDArray[np.float64]) -> Classification:
        """How likely each label is, from the log-probability of its tokens."""
        likelihoods = np.exp(log_probs - log_probs.max())
        shares = (likelihoods / likelihoods.sum()).tolist()
        ranked = sorted(zip(self._labels, shares, strict=True), key=lambda pair: -pair[1])
        return Classification(dict(ranked))

    # --- several texts together

    def seeds(self, num_texts: int) -> list[int | None]:
        """A seed for each text; None where none was given."""
        seed = self.config.seed if self.config.do_sample else None
        if seed is None:
            return [None] * num_texts
        if isinstance(seed, int):
            return [derived_seed(seed, index) for index in range(num_texts)]
        if len(seed) != num_texts:
            raise InvalidInputError(
                f"seed holds {len(seed)} seeds for {num_texts} texts. Give one seed, or one for each text."
            )
        return list(seed)

    # --- inside

    def _pieces(self, row: Mapping[str, str]) -> list[Piece]:
        """The row's text, cut into units; without one, a single unit."""
        if TEXT_SLOT not in self.task.text_slots:
            return [Piece("", 0, True)]
        if self.task.unit == "text" and self.task.answer != "tags":
            return [Piece(row[TEXT_SLOT], 0, True)]
        pieces, start = [], 0
        for text, is_unit in split_units(row[TEXT_SLOT], self.task.unit, lambda text: self._fits(row, text)):
            words = tuple(split_words(text)) if is_unit and self.task.answer == "tags" else ()
            pieces.append(Piece(text, start, is_unit, words))
            start += len(text)
        return pieces

    def _unit_slots(self, piece: Piece) -> dict[str, str]:
        if TEXT_SLOT not in self.task.text_slots:
            return {}
        if self.task.answer == "tags":
            return {TEXT_SLOT: " ".join(word.text for word in piece.words)}
        return self._shortened(piece.text)

    def _shortened(self, text: str) -> dict[str, str]:
        """The slot "text", cut to max_words."""
        words = text.split() if self.task.max_words is not None else []
        short = self.task.max_words is not None and len(words) > self.task.max_words
        return {TEXT_SLOT: " ".join(words[: self.task.max_words]) if short else text}

    def _fits(self, row: Mapping[str, str], text: str) -> bool:
        """Whether a unit leaves room for its answer: max_new_tokens, or half of the positions if that is less."""
        positions = self._model.max_length
        answer = min(self.config.max_new_tokens or positions // 2, positions // 2)
        unit = Piece(text, 0, True, tuple(split_words(text)) if self.task.answer == "tags" else ())
        if len(unit.words) * TAG_TOKENS > answer:
            return False
        return len(self._prompt({**row, **self._unit_slots(unit)})) + answer <= positions

    def _prompt(self, row: Mapping[str, str]) -> list[int]:
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
        return [*ids, *self.config.eos_token_ids[:1]]

    def _with_config(
        self, prompt: list[int], place: int, index: int, seed: int | None
    ) -> tuple[list[int], GenerationConfig]:
        """A prompt and its options: a seed of its own, and no more new tokens than there is room for."""
        changes: dict[str, Any] = {}
        if self.config.do_sample and seed is not None:
            changes["seed"] = derived_seed(seed, place)
        room = self._model.max_length - len(prompt)
        wanted = self.config.max_new_tokens or 1
        if self._model.overflow.mode == "error" and room < (wanted if self._length_is_given else 1):
            raise InvalidInputError(
                f"text {index} makes a prompt of {len(prompt)} tokens, and its answer needs {wanted}: more than the "
                f"{self._model.max_length} positions. Give a shorter text."
            )
        if not self._length_is_given and self._model.overflow.mode != "slide" and 0 < room < wanted:
            changes["max_new_tokens"] = room
        return prompt, self.config.updated(**changes)

    @property
    def max_in_flight(self) -> int:
        """Most prompts to run at once."""
        most: int = self._model._settings.max_batch_size or MAX_ROWS
        return max(min(most, MAX_ROWS) // self.config.num_beams, 1)


def was_cut(finish_reason: str) -> bool:
    """Whether an answer ended where its length or its time did."""
    return finish_reason not in ("eos", "stop")


def _read_labels(task: Task, given: Sequence[str] | None) -> tuple[str, ...]:
    if task.answer != "label":
        if given is not None:
            raise InvalidInputError(f"the task {task.name} takes no labels.")
        return ()
    if given is None:
        if task.labels:
            return task.labels
        raise InvalidInputError(f"the task {task.name} has no labels of its own. Give a list of labels.")
    if task.labels:
        raise InvalidInputError(f"the task {task.name} has labels of its own: {', '.join(task.labels)}.")
    labels: tuple[str, ...] = check.many(check.text)("labels", given) or ()
    for index, label in enumerate(labels):
        if not label.strip():
            raise InvalidInputError(f"labels[{index}] is {shown(label)}; it must be a text.")
    again = check.index_of_repeated(labels)
    if again is not None:
        raise InvalidInputError(
            f"labels[{again}] is {shown(labels[again])}, which the list has already. Give it once."
        )
    if len(labels) < 2:
        raise InvalidInputError(f"{len(labels)} label is no choice. Give at least two.")
    return labels
