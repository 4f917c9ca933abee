"""TaskRunner: runs the tasks of a model's TaskFile on its generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ..options.checks import flag
from ..options.generation_config import check_options
from ..system.caller_warning import warn_caller
from .planned_task import PlannedTask
from .slots import read_slots
from .task_call import TaskCall, TaskModel, was_cut
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
            answers = planned.answers(self._texts(planned))
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
        call = self.open(name, source=source, labels=labels, options=options, special_tokens=special_tokens)
        rows, is_batch = read_slots(call.task, slots)
        return PlannedTask(call, rows), is_batch

    def open(
        self,
        name: str,
        *,
        source: str | None = None,
        labels: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        special_tokens: bool = False,
    ) -> TaskCall:
        """A task for texts that come one by one. Args, Raises: as `plan`."""
        task = self._task_file.task(name)
        flag("special_tokens", special_tokens)
        if source is not None and task.sources:
            task.source(source)
        options = {} if options is None else options
        check_options("options", options)
        return TaskCall(self._generator, task, options, labels, special_tokens)

    def _texts(self, planned: PlannedTask) -> list[str]:
        """What the model writes behind each prompt."""
        texts, num_cut = [], 0
        for result in self._generator._map(iter(planned.prompts), planned.call.max_in_flight, {}):
            texts.append(result.text or "")
            num_cut += was_cut(result.finish_reasons[0])
        if num_cut:
            warn_caller(
                f"{num_cut} of {len(texts)} answers of the task {planned.task.name} were cut: no end token within "
                "max_new_tokens, max_time or the model's positions. Give shorter texts, or raise these options.",
                CutAnswerWarning,
            )
        return texts
