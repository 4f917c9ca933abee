"""Checks what a caller gives a task: what fills its template, and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInputError
from ..text.tokenizer import check_characters
from .task import Task

__all__ = ["check_labels", "read_rows"]


def read_rows(task: Task, slots: Mapping[str, Any]) -> tuple[list[dict[str, str]], bool]:
    """Return the slots of each text, and whether there are several.

    Raises:
        InvalidInputError: a slot is missing, unknown or not a text, or lists differ in length.
    """
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


def check_labels(task: Task, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the labels to choose from: the task's, or those that the caller gives.

    Raises:
        InvalidInputError: they are no choice, or the task has its own.
    """
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
