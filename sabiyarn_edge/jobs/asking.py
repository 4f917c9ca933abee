"""Turns the lines of a batch job into units of work, and what these give into records."""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .._core import derived_seed
from ..calls.result import GenerationResult
from ..errors import InvalidInputError, SabiYarnError
from ..generator import EdgeGenerator
from ..options.generation_config import GenerationConfig, OptionWarning
from ..tasks.runner import TaskRunner
from ..tasks.task_call import PreparedText, TaskCall
from .job import Planned, Record
from .ledger import Ledger
from .lines import PROMPT, Format, Id, LineError, Request, decoded, read_line
from .pipeline import EngineUnit, Unit
from .records import answer_fields, encoded, error_fields, generation_fields, task_fields
from .source import MAX_LINE_BYTES, Line

if TYPE_CHECKING:
    from .openai_batch import OpenAIRequests

__all__ = ["Asking"]


class Asking:
    """What a batch job asks of the model for each line.

    Args:
        task: of the model; None: lines are prompts.
        slots: what fills the task's template where a line does not say.
        source, labels, special_tokens: as `EdgeGenerator.run_task` takes them.
        options: of GenerationConfig, on top of the model's and the task's.
        with_ids: whether records hold the ids that were generated.

    Raises:
        InvalidInputError: the model does not have the task, or an argument is not allowed.
    """

    def __init__(
        self,
        generator: EdgeGenerator,
        *,
        task: str | None = None,
        slots: Mapping[str, str] | None = None,
        source: str | None = None,
        labels: Sequence[str] | None = None,
        special_tokens: bool = False,
        options: Mapping[str, Any] | None = None,
        with_ids: bool = False,
    ) -> None:
        self._generator, self._with_ids = generator, with_ids
        self._slots, self._options = dict(slots or {}), dict(options or {})
        self._open_task = functools.partial(
            TaskRunner(generator, generator.tasks).open,
            task or "",
            source=source,
            labels=labels,
            special_tokens=special_tokens,
        )
        self._task: TaskCall | None = None if task is None else self._open_task(options=self._options)
        if self._task is None:
            self.config = generator.generation_config.updated(**self._options)
            self._main = PROMPT
            unused = [*self._slots, *(["labels"] if labels is not None else [])]
            if unused:
                raise InvalidInputError(f"{unused[0]} belongs to a task, but no task is given.")
        else:
            self.config = self._task.config
            self._main = self._main_slot(self._task)
        self.seed = self.config.seed if isinstance(self.config.seed, int) else 0
        """From which those of the lines are derived."""
        self.ledger: Ledger | None = None
        """Knows the ids of the lines before; None: they are not checked."""
        self.format: Format = "lines"
        """What lines are."""
        self.elsewhere: Callable[[Request, int], Unit] | None = None
        """Makes the unit that answers a line, given its number, in another process; its outcome is a Record. None: this
        process answers."""
        self._openai: OpenAIRequests | None = None

    def _main_slot(self, task: TaskCall) -> str:
        """The slot that plain texts fill: the first that is not given."""
        for slot in self._slots:
            if slot not in task.task.template.slots:
                raise InvalidInputError(
                    f"the task {task.task.name} has no slot {slot}; it has {', '.join(task.task.template.slots)}."
                )
        for slot in task.task.languages:
            if slot in self._slots:
                self._slots[slot] = task.task.language(slot, self._slots[slot])
        left = [slot for slot in task.task.text_slots if slot not in self._slots]
        if not left:
            raise InvalidInputError(
                "all slots of the task are given, so that no line could differ. Leave one out."
            )
        return left[0]

    def expect(self, given: Format) -> None:
        """Say what lines are.

        Raises:
            InvalidInputError: they are plain texts, and the task needs more than these.
        """
        self.format = given
        if self._task is not None and given == "lines":
            self._task.row({**self._slots, self._main: self._main})

    @property
    def slots(self) -> Mapping[str, str]:
        """What fills the template where a line does not say; languages are codes."""
        return self._slots

    # --- Work

    def plan(self, line: Line) -> Planned | None:
        name: Id | None = None if self.format == "jsonl" else line.number
        try:
            request = self._read(line, name)
        except InvalidInputError as error:
            if isinstance(error, LineError) and error.id is not None:
                name = error.id
            return _refused(name, line.number, error)
        if request is None:
            return None
        if self.elsewhere is None:
            return self.plan_request(request, line.number)
        refuse = functools.partial(_error_record, request.id, line.number)
        return Planned([self.elsewhere(request, line.number)], lambda outcomes: outcomes[0], refuse)

    def pass_over(self, line: Line) -> None:
        """Note the id of a line that another shard answers: the ids of all shards must differ."""
        if self.format == "jsonl" and self.ledger is not None:
            with suppress(InvalidInputError):  # the other shard's record says it
                self._read(line, None)

    def _read(self, line: Line, name: Id | None) -> Request | None:
        """What a line asks for; None: it is empty."""
        if line.content is None:
            raise LineError(f"line {line.number} is longer than {MAX_LINE_BYTES} bytes. Cut it.", name)
        if not line.content.strip():
            return None
        request = read_line(decoded(line.content, line.number), line.number, self.format, self._main)
        if self.format == "jsonl" and self.ledger is not None:
            self._check_id(self.ledger, request, line.number)
        return request

    def _check_id(self, ledger: Ledger, request: Request, line: int) -> None:
        first = ledger.add_id(json.dumps(request.id), line)
        if first is not None:
            raise LineError(
                f"the id {json.dumps(request.id, ensure_ascii=False)} of line {line} is line {first}'s already. Ids "
                "must differ."
            )

    def plan_request(self, request: Request, line: int) -> Planned:
        """What to run for a line that was read.

        Args:
            line: its number, from 1.
        """
        refuse = functools.partial(_error_record, request.id, line)
        try:
            if request.openai is not None:
                return self._plan_openai(request)
            if self._task is None:
                return self._plan_prompt(request, refuse)
            return self._plan_task(self._task, request, refuse)
        except InvalidInputError as error:
            return _refused(request.id, line, error)

    def _plan_prompt(self, request: Request, refuse: Any) -> Planned:
        if PROMPT not in request.slots:
            if {"url", "body"} <= request.slots.keys():
                raise InvalidInputError(
                    "there is no custom_id, which a line in OpenAI's format needs beside url and body. Give one."
                )
            raise InvalidInputError(
                f'there is no "prompt", or it is null, beside {", ".join(request.slots) or "nothing else"}. Give one, '
                "or a --task."
            )
        config = self.config
        if request.options:
            with _unused_options_unsaid():
                config = config.updated(**request.options)
        config = self._seeded(config, request)
        given = request.slots[PROMPT]
        if not isinstance(given, str) and not (isinstance(given, list) and given and type(given[0]) is int):
            raise InvalidInputError("prompt must be a string, or a list of token ids.")
        unit = self._unit(given, config)

        def write(outcomes: list[Any]) -> Record:
            fields = generation_fields(outcomes[0], with_ids=self._with_ids)
            return _record(request.id, fields)

        return Planned([unit], write, refuse)

    def _plan_task(self, task: TaskCall, request: Request, refuse: Any) -> Planned:
        if request.options:
            with _unused_options_unsaid():
                task = self._open_task(options={**self._options, **request.options})
        known = task.task.template.slots
        row = task.row({**self._slots, **{k: v for k, v in request.slots.items() if k in known}})
        if task.task.answer == "label":
            return self._plan_labels(task, row, request, refuse)
        seed = self._seeded(task.config, request).seed
        prepared: PreparedText = task.prepare(row, seed=seed if isinstance(seed, int) else None)
        units = [self._unit(ids, config) for ids, config in prepared.prompts]

        def write(outcomes: list[GenerationResult]) -> Record:
            answer = task.answer(prepared, [result.text or "" for result in outcomes])
            return _record(request.id, task_fields(answer, outcomes, with_ids=self._with_ids))

        return Planned(units, write, refuse)

    def _plan_labels(self, task: TaskCall, row: dict[str, str], request: Request, refuse: Any) -> Planned:
        prompt, choices = task.whole_prompt(row), task.label_choices()
        [work] = self._generator._choice_works([prompt], [choices])
        positions = len(prompt) + sum(map(len, choices))
        unit = EngineUnit(self._generator._engine, work, positions, lambda: work.log_probs, id(self))

        def write(outcomes: list[Any]) -> Record:
            fields = answer_fields(task.classification(outcomes[0]))
            return _record(request.id, {**fields, "tokens": {"prompt": len(prompt), "generated": 0}})

        return Planned([unit], write, refuse)

    def _plan_openai(self, request: Request) -> Planned:
        if self._openai is None:
            from .openai_batch import OpenAIRequests

            given = {
                "output_scores": self.config.output_scores,
                "--task": self._task is not None,
                "--ids": self._with_ids,
            }
            refusal = next(
                (
                    f"{name} is not for lines in OpenAI's format, which say what they ask for. Leave it out."
                    for name, is_given in given.items()
                    if is_given
                ),
                "",
            )
            self._openai = OpenAIRequests(self._generator, self.config, refusal)
        return self._openai.plan(request, seed=self._seed_of(request.id))

    def _unit(self, prompt: str | Sequence[int], config: GenerationConfig) -> EngineUnit:
        pending = self._generator._prepare(prompt, config, {})
        [work] = pending.works
        positions = work.positions * work.num_rows
        return EngineUnit(self._generator._engine, work, positions, pending.result, id(self))

    def _seeded(self, config: GenerationConfig, request: Request) -> GenerationConfig:
        """The options of a line, with a seed of its own where tokens are drawn."""
        if not config.do_sample or "seed" in request.options:
            return config
        return config.updated(seed=self._seed_of(request.id))

    def _seed_of(self, id: Id) -> int:
        digest = hashlib.sha256(json.dumps(id).encode()).digest()
        return derived_seed(self.seed, int.from_bytes(digest[:8], "little"))

    def close(self) -> None:
        """End what was begun for OpenAI's format."""
        if self._openai is not None:
            self._openai.close()


@contextmanager
def _unused_options_unsaid() -> Iterator[None]:
    """Warn of no option that changes nothing: it was said once, of the job's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptionWarning)
        yield


def _record(id: Id, fields: dict[str, Any]) -> Record:
    tokens = fields["tokens"]
    return Record(encoded({"id": id, **fields}), tokens["prompt"], tokens["generated"])


def _error_record(id: Id | None, line: int, error: SabiYarnError) -> Record:
    return Record(encoded(error_fields(id, line, error)), is_error=True)


def _refused(id: Id | None, line: int, error: SabiYarnError) -> Planned:
    """A line of which nothing is run."""
    return Planned(
        (), lambda outcomes: _error_record(id, line, error), functools.partial(_error_record, id, line)
    )
