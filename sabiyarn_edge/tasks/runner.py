"""TaskRunner: runs the tasks of a model's TaskFile on its generator."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._core import derived_seed
from ..errors import InvalidInputError
from ..options.checks import flag
from ..options.generation_config import GenerationConfig
from ..options.overflow import Overflow
from ..text.tokenizer import Tokenizer, check_characters
from .answers import Classification, Entity, Word, read_entities, split_words
from .task import TEXT_SLOT, Task
from .task_file import TaskFile
from .units import split_units

__all__ = ["CutAnswerWarning", "PreparedText", "TaskCall", "TaskRunner", "was_cut"]

MAX_ROWS = 32
"""Rows that a task runs at once: prompts times beams."""


class CutAnswerWarning(UserWarning):
    """An answer ended where its length did, and may lack its end."""


TAG_TOKENS = 4
"""Room for one word's tag: " B-PER" is up to four tokens."""


@dataclass(frozen=True)
class _Piece:
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

    pieces: list[_Piece]
    prompts: list[tuple[list[int], GenerationConfig]]


class TaskGenerator(Protocol):
    """What a TaskRunner uses of an EdgeGenerator."""

    tokenizer: Tokenizer | None
    _settings: Any

    @property
    def generation_config(self) -> GenerationConfig: ...
    @property
    def max_length(self) -> int: ...
    @property
    def overflow(self) -> Overflow: ...
    def _map(self, inputs: Iterator[Any], max_in_flight: int, options: dict[str, Any]) -> Iterator[Any]: ...
    def _choice_log_probs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]]
    ) -> Any: ...


class TaskRunner:
    """Runs tasks.

    Args:
        generator: a model with a tokenizer.
        task_file: of the model's folder.
    """

    def __init__(self, generator: TaskGenerator, task_file: TaskFile) -> None:
        self._generator, self._task_file = generator, task_file

    def run(
        self,
        name: str,
        slots: Mapping[str, Any],
        *,
        source: str | None = None,
        labels: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        special_tokens: bool = False,
    ) -> Any:
        """Run a task on one text or on several, which run together.

        Args:
            name: of the task.
            slots: what fills the template: each a string, or a list of strings. Single strings go with every item of
                the lists.
            source: the language of the text, checked against those that the task takes; None: not checked.
            labels: with answer "label": the labels to choose from; None: the task's.
            options: of GenerationConfig, on top of the task's.
            special_tokens: read special tokens in what fills the slots as such.

        Returns:
            str, Classification or a list of Entity, as the task's answer is read; a list of these for lists.

        Raises:
            InvalidInputError: an argument is not allowed; nothing was computed.
        """
        call = self.open(name, source=source, labels=labels, options=options, special_tokens=special_tokens)
        rows, is_batch = _rows(call.task, slots)
        answers = call.classify(rows) if call.task.answer == "label" else call.write(rows)
        return answers if is_batch else answers[0]

    def open(
        self,
        name: str,
        *,
        source: str | None = None,
        labels: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        special_tokens: bool = False,
    ) -> TaskCall:
        """A task for texts that come one by one. Args, Raises: as `run`."""
        task = self._task_file.task(name)
        flag("special_tokens", special_tokens)
        if source is not None and task.sources:
            task.source(source)
        if task.answer == "label":
            labels = _check_labels(task, labels)
        elif labels is not None:
            raise InvalidInputError(f"the task {task.name} takes no labels.")
        return TaskCall(self._generator, task, options or {}, labels or (), special_tokens)


def _rows(task: Task, slots: Mapping[str, Any]) -> tuple[list[dict[str, str]], bool]:
    """The slots of each text, and whether there are several."""
    for slot in slots:
        if slot not in task.template.slots:
            raise InvalidInputError(
                f"the task {task.name} has no slot {slot}; it has {', '.join(task.template.slots)}."
            )
    missing = [slot for slot in task.template.slots if slot not in slots]
    if missing:
        raise InvalidInputError(f"the task {task.name} needs {' and '.join(missing)}. Give {missing[0]}=.")
    lists = {slot: value for slot, value in slots.items() if isinstance(value, list | tuple)}
    lengths = {slot: len(value) for slot, value in lists.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{slot} {length}" for slot, length in lengths.items())
        raise InvalidInputError(f"the lists differ in length: {told}. Give lists of one length.")
    count = next(iter(lengths.values()), 1)
    rows = []
    for index in range(count):
        row = {}
        for slot in task.template.slots:
            value = lists[slot][index] if slot in lists else slots[slot]
            what = f"{slot}[{index}]" if slot in lists else slot
            row[slot] = _checked(task, slot, value, what)
        rows.append(row)
    return rows, bool(lists)


def _checked(task: Task, slot: str, value: Any, what: str) -> str:
    if slot in task.languages:
        return task.language(slot, value)
    if not isinstance(value, str):
        raise InvalidInputError(
            f"{what} is a {type(value).__name__}; it must be a string, or a list of strings."
        )
    check_characters(value)
    return value


class TaskCall:
    """One task with its options.

    Args:
        generator: a model with a tokenizer.
        options: of GenerationConfig, on top of the task's.
        labels: with answer "label": the labels to choose from.
        special_tokens: read special tokens in what fills the slots as such.
    """

    def __init__(
        self,
        generator: TaskGenerator,
        task: Task,
        options: Mapping[str, Any],
        labels: Sequence[str],
        special_tokens: bool,
    ) -> None:
        if generator.tokenizer is None:
            raise InvalidInputError(
                "tasks need a tokenizer, but the model folder has none. Put the model's tokenizer.json into it."
            )
        self._generator, self.task, self._labels = generator, task, tuple(labels)
        self._tokenizer: Tokenizer = generator.tokenizer
        self._special_tokens = special_tokens
        base = generator.generation_config.updated(**task.options)
        self.config = base.updated(**options)
        """The options of all its prompts."""
        self._length_is_given = "max_new_tokens" in options or "max_length" in options
        if self.config.num_return_sequences > 1:
            raise InvalidInputError(
                f"num_return_sequences is {self.config.num_return_sequences}, but a task gives one answer for each "
                "text. Leave it out."
            )

    # --- texts one by one

    def row(self, slots: Mapping[str, Any]) -> dict[str, str]:
        """What fills the template for one text, checked. Raises: InvalidInputError."""
        return _rows(self.task, slots)[0][0]

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

    def choices(self, row: Mapping[str, str]) -> tuple[list[int], list[list[int]]]:
        """With answer "label": the prompt of a text, and the tokens of each label.

        A label ends with the end token, so that a label with which another one begins does not have that one's
        probability too.
        """
        return self.whole_prompt(row), [self._label_tokens(label) for label in self._labels]

    def classification(self, log_probs: NDArray[np.float64]) -> Classification:
        """How likely each label is, from the log-probability of its tokens."""
        likelihoods = np.exp(log_probs - log_probs.max())
        shares = (likelihoods / likelihoods.sum()).tolist()
        ranked = sorted(zip(self._labels, shares, strict=True), key=lambda pair: -pair[1])
        return Classification(dict(ranked))

    # --- several texts together

    def write(self, rows: Sequence[dict[str, str]]) -> list[Any]:
        """A text, or the entities, of each row."""
        seeds = self._seeds(len(rows))
        prepared = [  # all at once: what is refused is refused before anything runs
            self.prepare(row, seed=seeds[index], index=index) for index, row in enumerate(rows)
        ]
        prompts = [prompt for text in prepared for prompt in text.prompts]
        results = self._generator._map(iter(prompts), self._max_in_flight, {})
        answers, num_cut = [], 0
        for text in prepared:
            given = list(itertools.islice(results, len(text.prompts)))
            num_cut += sum(was_cut(result.finish_reasons[0]) for result in given)
            answers.append(self.answer(text, [result.text or "" for result in given]))
        if num_cut:
            warnings.warn(
                f"{num_cut} of {len(prompts)} answers of the task {self.task.name} were cut: no end token within "
                "max_new_tokens, max_time or the model's positions. Give shorter texts, or raise these options.",
                CutAnswerWarning,
                stacklevel=2,
            )
        return answers

    def classify(self, rows: Sequence[dict[str, str]]) -> list[Classification]:
        """How likely each label is for each row."""
        asked = [self.choices(row) for row in rows]
        scores = self._generator._choice_log_probs(
            [prompt for prompt, _ in asked], [choices for _, choices in asked]
        )
        return [self.classification(log_probs) for log_probs in scores]

    def _seeds(self, num_texts: int) -> list[int | None]:
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

    def _pieces(self, row: Mapping[str, str]) -> list[_Piece]:
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

    def _shortened(self, text: str) -> dict[str, str]:
        """The slot "text", cut to max_words."""
        words = text.split() if self.task.max_words is not None else []
        short = self.task.max_words is not None and len(words) > self.task.max_words
        return {TEXT_SLOT: " ".join(words[: self.task.max_words]) if short else text}

    def _fits(self, row: Mapping[str, str], text: str) -> bool:
        """Whether a unit leaves room for its answer: max_new_tokens, or half of the positions if that is less."""
        positions = self._generator.max_length
        answer = min(self.config.max_new_tokens or positions // 2, positions // 2)
        unit = _Piece(text, 0, True, tuple(split_words(text)) if self.task.answer == "tags" else ())
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
        room = self._generator.max_length - len(prompt)
        wanted = self.config.max_new_tokens or 1
        if self._generator.overflow.mode == "error" and room < (wanted if self._length_is_given else 1):
            raise InvalidInputError(
                f"text {index} makes a prompt of {len(prompt)} tokens, and its answer needs {wanted}: more than the "
                f"{self._generator.max_length} positions. Give a shorter text."
            )
        if not self._length_is_given and self._generator.overflow.mode != "slide" and 0 < room < wanted:
            changes["max_new_tokens"] = room
        return prompt, self.config.updated(**changes)

    @property
    def _max_in_flight(self) -> int:
        most: int = self._generator._settings.max_batch_size or MAX_ROWS
        return max(min(most, MAX_ROWS) // self.config.num_beams, 1)


def was_cut(finish_reason: str) -> bool:
    """Whether an answer ended where its length or its time did."""
    return finish_reason not in ("eos", "stop")


def _check_labels(task: Task, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        if task.labels:
            return task.labels
        raise InvalidInputError(f"the task {task.name} has no labels of its own. Give a list of labels.")
    if task.labels:
        raise InvalidInputError(f"the task {task.name} has labels of its own: {', '.join(task.labels)}.")
    if isinstance(given, str):
        raise InvalidInputError(f"labels is {given!r}; it must be a list of labels.")
    labels = tuple(given)
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise InvalidInputError(f"labels[{index}] is {label!r}; it must be a text.")
        if label in labels[:index]:
            raise InvalidInputError(
                f"labels[{index}] is {label!r}, which the list has already. Give it once."
            )
    if len(labels) < 2:
        raise InvalidInputError(f"{len(labels)} label is no choice. Give at least two.")
    return labels
