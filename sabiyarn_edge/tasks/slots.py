"""What a caller gives for a task's template: each slot a text, or a list of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInputError
from ..text.characters import check_characters
from .task import Task

__all__ = ["read_slots"]


def read_slots(task: Task, slots: Mapping[str, Any]) -> tuple[list[dict[str, str]], bool]:
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
