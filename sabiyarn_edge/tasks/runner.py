"""TaskRunner: runs the tasks of a model's TaskFile on its generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ..errors import InvalidInputError
from ..options.checks import flag
from ..options.generation_config import check_options
from ..system.caller_warning import warn_caller
from ..text.tokenizer import check_characters
from .planned_task import PlannedTask, TaskModel
from .task import Task
from .task_file import TaskFile

__all__ = ["CutAnswerWarning", "TaskRunner"]


class CutAnswerWarning(UserWarning):
    """An answer ended where its length did, and may lack its end."""


class TaskGenerator(TaskModel, Protocol):
    """What a TaskRunner uses of an EdgeGenerator."""

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

        Args, Raises: as `plan`; nothing was computed.

        Returns:
            str, Classification or a list of Entity, as the task's answer is read; a list of these for lists.
        """
        planned, is_batch = self.plan(
            name, slots, source=source, labels=labels, options=options, special_tokens=special_tokens
        )
        answers: list[Any]
        if planned.choices:
            prompts = [prompt for prompt, _ in planned.prompts]
            scores = self._generator._choice_log_probs(prompts, [planned.choices] * len(prompts))
            answers = planned.classified(scores)
        else:
            texts = self._texts(planned)
            answers = planned.tagged(texts) if planned.task.answer == "tags" else planned.written(texts)
        return answers if is_batch else answers[0]

    def plan(
        self,
        name: str,
        slots: Mapping[str, Any],
        *,
        source: str | None = None,
        labels: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        special_tokens: bool = False,
    ) -> tuple[PlannedTask, bool]:
        """Check a call, and make its prompts.

        Args:
            name: of the task.
            slots: what fills the template: each a string, or a list of strings. Single strings go with every item of
                the lists.
            source: the language of the text, checked against those that the task takes; None: not checked.
            labels: with answer "label": the labels to choose from; None: the task's.
            options: of GenerationConfig, on top of the task's.
            special_tokens: read special tokens in what fills the slots as such.

        Returns:
            The call, and whether it is one of lists.

        Raises:
            InvalidInputError: an argument is not allowed.
        """
        task = self._task_file.task(name)
        flag("special_tokens", special_tokens)
        if source is not None and task.sources:
            task.source(source)
        rows, is_batch = _rows(task, slots)
        options = {} if options is None else options
        check_options("options", options)
        return PlannedTask(self._generator, task, rows, labels, options, special_tokens), is_batch

    def _texts(self, planned: PlannedTask) -> list[str]:
        """What the model writes behind each prompt."""
        texts, num_cut = [], 0
        for result in self._generator._map(iter(planned.prompts), planned.max_in_flight, {}):
            texts.append(result.text or "")
            num_cut += result.finish_reasons[0] not in ("eos", "stop")
        if num_cut:
            warn_caller(
                f"{num_cut} of {len(texts)} answers of the task {planned.task.name} were cut: no end token within "
                "max_new_tokens, max_time or the model's positions. Give shorter texts, or raise these options.",
                CutAnswerWarning,
            )
        return texts


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
