"""TaskRunner: runs the tasks of a model's TaskFile on its generator."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .._core import derived_seed
from ..errors import InvalidInputError
from ..options.checks import flag
from ..options.generation_config import GenerationConfig
from ..options.overflow import Overflow
from ..text.tokenizer import Tokenizer
from .answers import Classification, Entity, Word, read_entities, split_words
from .arguments import check_labels, read_rows
from .task import TEXT_SLOT, Task
from .task_file import TaskFile
from .units import split_units

__all__ = ["CutAnswerWarning", "TaskRunner"]

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
        task = self._task_file.task(name)
        flag("special_tokens", special_tokens)
        if source is not None and task.sources:
            task.source(source)
        rows, is_batch = read_rows(task, slots)
        call = _TaskCall(self._generator, task, options or {}, special_tokens)
        answers: list[Any]
        if task.answer == "label":
            answers = call.classify(rows, labels)
        elif labels is not None:
            raise InvalidInputError(f"the task {task.name} takes no labels.")
        elif task.answer == "tags":
            answers = call.tag(rows)
        else:
            answers = call.write(rows)
        return answers if is_batch else answers[0]

    def prompts(
        self, name: str, slots: Mapping[str, Any], *, special_tokens: bool = False
    ) -> list[list[int]]:
        """Return the ids of the prompts that `run` makes of the same arguments, computing nothing.

        Raises:
            InvalidInputError: as `run`.
        """
        task = self._task_file.task(name)
        rows, _ = read_rows(task, slots)
        return _TaskCall(self._generator, task, {}, special_tokens).prompts(rows)


class _TaskCall:
    """One call of one task."""

    def __init__(
        self, generator: TaskGenerator, task: Task, options: Mapping[str, Any], special_tokens: bool
    ) -> None:
        if generator.tokenizer is None:
            raise InvalidInputError(
                "tasks need a tokenizer, but the model folder has none. Put the model's tokenizer.json into it."
            )
        self._generator, self._task = generator, task
        self._tokenizer: Tokenizer = generator.tokenizer
        self._special_tokens = special_tokens
        base = generator.generation_config.updated(**task.options)
        self._config = base.updated(**options)
        self._length_is_given = "max_new_tokens" in options or "max_length" in options
        if self._config.num_return_sequences > 1:
            raise InvalidInputError(
                f"num_return_sequences is {self._config.num_return_sequences}, but a task gives one answer for each "
                "text. Leave it out."
            )

    # --- answers

    def write(self, rows: Sequence[dict[str, str]]) -> list[str]:
        """A text for each row."""
        texts = []
        for pieces, answers in self._answers(rows):
            kept = (piece.text for piece in pieces if not piece.is_unit)
            answered = iter(answers)
            texts.append("".join(next(answered) if piece.is_unit else next(kept) for piece in pieces))
        return texts

    def tag(self, rows: Sequence[dict[str, str]]) -> list[list[Entity]]:
        """The entities of each row's text."""
        found = []
        for pieces, answers in self._answers(rows):
            entities: list[Entity] = []
            units = (piece for piece in pieces if piece.is_unit)
            for piece, answer in zip(units, answers, strict=True):
                entities += read_entities(piece.text, piece.words, answer.split(), piece.start)
            found.append(entities)
        return found

    def classify(self, rows: Sequence[dict[str, str]], labels: Sequence[str] | None) -> list[Classification]:
        """How likely each label is for each row.

        A label's log-probability is that of its tokens and of the end token behind them, so that a label with which
        another one begins does not have that one's probability too.
        """
        labels = check_labels(self._task, labels)
        choices = [self._label_tokens(label) for label in labels]
        prompts = self.prompts(rows)
        found = []
        for scores in self._generator._choice_log_probs(prompts, [choices] * len(prompts)):
            likelihoods = np.exp(scores - scores.max())
            shares = (likelihoods / likelihoods.sum()).tolist()
            ranked = sorted(zip(labels, shares, strict=True), key=lambda pair: -pair[1])
            found.append(Classification(dict(ranked)))
        return found

    # --- prompts

    def prompts(self, rows: Sequence[dict[str, str]]) -> list[list[int]]:
        """The prompts of all units of all rows; a label's prompt is the whole text's."""
        if self._task.answer != "label":
            units = [(row, piece) for row in rows for piece in self._pieces(row) if piece.is_unit]
            return [self._prompt({**row, **self._unit_slots(piece)}) for row, piece in units]
        cut = [self._shortened(row[TEXT_SLOT]) if TEXT_SLOT in row else {} for row in rows]
        return [self._prompt({**row, **slots}) for row, slots in zip(rows, cut, strict=True)]

    def _answers(self, rows: Sequence[dict[str, str]]) -> Iterator[tuple[list[_Piece], list[str]]]:
        """The pieces of each row, with the answers of its units."""
        cut = [self._pieces(row) for row in rows]
        units = [[piece for piece in pieces if piece.is_unit] for pieces in cut]
        prompts = [  # all at once: what is refused is refused before anything runs
            self._with_config(self._prompt({**row, **self._unit_slots(piece)}), place, index, len(rows))
            for index, row in enumerate(rows)
            for place, piece in enumerate(units[index])
        ]
        results = self._generator._map(iter(prompts), self._max_in_flight, {})
        num_cut = 0
        for pieces, own in zip(cut, units, strict=True):
            texts = []
            for result in itertools.islice(results, len(own)):
                texts.append(result.text or "")
                num_cut += result.finish_reasons[0] not in ("eos", "stop")
            yield pieces, texts if self._task.answer == "raw" else [text.strip() for text in texts]
        if num_cut:
            warnings.warn(
                f"{num_cut} of {len(prompts)} answers of the task {self._task.name} were cut: no end token within "
                "max_new_tokens, max_time or the model's positions. Give shorter texts, or raise these options.",
                CutAnswerWarning,
                stacklevel=2,
            )

    def _pieces(self, row: dict[str, str]) -> list[_Piece]:
        """The row's text, cut into units; without one, a single unit."""
        if TEXT_SLOT not in self._task.text_slots:
            return [_Piece("", 0, True)]
        if self._task.unit == "text" and self._task.answer != "tags":
            return [_Piece(row[TEXT_SLOT], 0, True)]
        pieces, start = [], 0
        for text, is_unit in split_units(row[TEXT_SLOT], self._task.unit, lambda text: self._fits(row, text)):
            words = tuple(split_words(text)) if is_unit and self._task.answer == "tags" else ()
            pieces.append(_Piece(text, start, is_unit, words))
            start += len(text)
        return pieces

    def _unit_slots(self, piece: _Piece) -> dict[str, str]:
        if TEXT_SLOT not in self._task.text_slots:
            return {}
        if self._task.answer == "tags":
            return {TEXT_SLOT: " ".join(word.text for word in piece.words)}
        return self._shortened(piece.text)

    def _shortened(self, text: str) -> dict[str, str]:
        """The slot "text", cut to max_words."""
        words = text.split() if self._task.max_words is not None else []
        short = self._task.max_words is not None and len(words) > self._task.max_words
        return {TEXT_SLOT: " ".join(words[: self._task.max_words]) if short else text}

    def _fits(self, row: dict[str, str], text: str) -> bool:
        """Whether a unit leaves room for its answer: max_new_tokens, or half of the positions if that is less."""
        positions = self._generator.max_length
        answer = min(self._config.max_new_tokens or positions // 2, positions // 2)
        unit = _Piece(text, 0, True, tuple(split_words(text)) if self._task.answer == "tags" else ())
        if len(unit.words) * TAG_TOKENS > answer:
            return False
        return len(self._prompt({**row, **self._unit_slots(unit)})) + answer <= positions

    def _prompt(self, row: dict[str, str]) -> list[int]:
        for slot in self._task.text_slots:
            if not row[slot].strip():
                raise InvalidInputError(f"{slot} is empty. Give at least a word.")
        raw = self._task.answer == "raw"  # what follows a blank is not what follows the word before it
        values = {slot: text if raw else text.strip() for slot, text in row.items()}
        trusted = self._task.template.slots if self._special_tokens else self._task.languages
        return self._tokenizer.encode_parts(self._task.template.fill(values, trusted))

    def _label_tokens(self, label: str) -> list[int]:
        trusted = ("label",) if self._task.labels or self._special_tokens else ()
        ids = self._tokenizer.encode_parts(
            self._task.label_template.fill({"label": label}, trusted), add_special_tokens=False
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
        room = self._generator.max_length - len(prompt)
        wanted = config.max_new_tokens or 1
        if self._generator.overflow.mode == "error" and room < (wanted if self._length_is_given else 1):
            raise InvalidInputError(
                f"text {index} makes a prompt of {len(prompt)} tokens, and its answer needs {wanted}: more than the "
                f"{self._generator.max_length} positions. Give a shorter text."
            )
        if not self._length_is_given and self._generator.overflow.mode != "slide" and 0 < room < wanted:
            changes["max_new_tokens"] = room
        return prompt, config.updated(**changes)

    @property
    def _max_in_flight(self) -> int:
        most: int = self._generator._settings.max_batch_size or MAX_ROWS
        return max(min(most, MAX_ROWS) // self._config.num_beams, 1)
