"""TaskFile: the tasks.json of a model folder. It is data: nothing in it is run."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InvalidInputError, ModelFolderError, shortened, shown
from ..options.checks import index_of_repeated
from ..options.generation_config import GenerationConfig
from ..system.json_text import parse_json
from ..system.regular_file import read_regular_file
from ..text.characters import check_characters
from .json_lines import line_of
from .known_prompts import KnownPrompts
from .names import find_name, fold
from .task import ANSWERS, TEXT_SLOT, Language, Task
from .template import Template
from .units import UNITS

__all__ = ["TASKS_FILE", "TaskFile"]

TASKS_FILE = "tasks.json"
FORMAT_VERSION = 1
_LONGEST_FILE = 16 * 2**20
"""Bytes of a tasks.json; SabiYarn's has 5 KiB."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NO_SLOTS = ("labels", "model", "options", "self", "source", "special_tokens", "stream")
"""Names that a slot cannot have: they are arguments of run_task, or fields of the server's /v1/tasks."""

_Path = tuple[str | int, ...]
"""Keys and indices from the outermost value on."""

_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class TaskFile:
    """The tasks of a model, and the languages that they name."""

    languages: Mapping[str, Language]
    tasks: Mapping[str, Task]
    known_prompts: KnownPrompts | None = None
    """Tells prompts that the model can know from others; None: nothing does."""

    @classmethod
    def load(cls, folder: str | Path) -> TaskFile:
        """Read folder/tasks.json; a folder without one has no tasks.

        Raises:
            ModelFolderError: the file is damaged, or something in it is not allowed; names the line.
        """
        path = Path(folder) / TASKS_FILE
        if not path.exists():
            return cls({}, {})
        try:
            return cls.read(path)
        except InvalidInputError as error:
            raise ModelFolderError(str(error)) from error

    @classmethod
    def read(cls, path: str | Path) -> TaskFile:
        """Read a file in the form of tasks.json.

        Raises:
            InvalidInputError: it cannot be read, or something in it is not allowed; names the line.
        """
        try:
            text = read_regular_file(path, at_most=_LONGEST_FILE).decode("utf-8-sig")
        except OSError as error:
            raise InvalidInputError(f"cannot read {path}: {error.strerror or error}.") from error
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{path} is not UTF-8 ({error}).") from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, source: str) -> TaskFile:
        """Read a text in the form of tasks.json.

        Args:
            source: what the text is called in messages.

        Raises:
            InvalidInputError: as `read`.
        """
        try:
            values = parse_json(text)
        except json.JSONDecodeError as error:
            raise InvalidInputError(
                f"{source}, line {error.lineno}: this is not JSON ({error.msg}, column {error.colno})."
            ) from error
        except ValueError as error:  # an integer of thousands of digits; [[[[...
            raise InvalidInputError(f"{source} is not JSON that can be read: {error}.") from error
        try:
            return _task_file(values)
        except _Fault as fault:
            place = "".join(
                f"[{key}]" if isinstance(key, int) else f".{shortened(key)}" for key in fault.path
            ).lstrip(".")
            where = f"{source}, line {line_of(text, fault.path)}"
            raise InvalidInputError(f"{where}: {f'{place}: ' if place else ''}{fault}") from None

    def task(self, name: object, what: str = "the task") -> Task:
        """Return the task of a name.

        Raises:
            InvalidInputError: there is none; lists all and the nearest.
        """
        if not self.tasks:
            raise InvalidInputError(
                f"this model has no tasks: its folder has no {TASKS_FILE}. Write one (docs/tasks.md), or give the "
                "prompt to generate()."
            )
        return self.tasks[find_name(what, name, dict.fromkeys(self.tasks, ()))]

    def classifier(self, name: object, what: str) -> Task:
        """Return the task of a name, which must have labels.

        Raises:
            InvalidInputError: there is none; lists all that have labels, and the nearest.
        """
        labelled = [task.name for task in self.tasks.values() if task.labels]
        if self.tasks and not labelled:
            raise InvalidInputError(
                f"this model has no task with labels of its own, so {what} cannot be {shown(name)}; it has "
                f"{', '.join(self.tasks)}."
            )
        return self.task(find_name(what, name, dict.fromkeys(labelled, ())) if labelled else name)


class _Fault(Exception):
    """Something in the file is not allowed."""

    def __init__(self, path: _Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def _task_file(values: Any) -> TaskFile:
    _check_keys(values, (), required=("format_version", "tasks"), optional=("languages", "known_prompts"))
    if values["format_version"] != FORMAT_VERSION:
        raise _Fault(
            ("format_version",),
            f"it is {shown(values['format_version'])}, but this version of sabiyarn_edge reads "
            f"{FORMAT_VERSION}. Update it.",
        )
    languages = {
        code: _language(code, entry, ("languages", code))
        for code, entry in _object(values.get("languages", {}), ("languages",)).items()
    }
    _check_names_differ(languages)
    tasks = {
        name: _task(name, entry, languages, ("tasks", name))
        for name, entry in _object(values["tasks"], ("tasks",)).items()
    }
    known = values.get("known_prompts")
    return TaskFile(languages, tasks, None if known is None else _known_prompts(known, ("known_prompts",)))


def _known_prompts(entry: Any, path: _Path) -> KnownPrompts:
    _check_keys(entry, path, required=("least_log_prob", "note"), optional=())
    return KnownPrompts(
        _number(entry["least_log_prob"], (*path, "least_log_prob")), _text(entry["note"], (*path, "note"))
    )


def _language(code: str, entry: Any, path: _Path) -> Language:
    _check_keys(entry, path, required=("name",), optional=("aliases",))
    return Language(
        code, _text(entry["name"], (*path, "name")), _texts(entry.get("aliases", []), (*path, "aliases"))
    )


def _check_names_differ(languages: Mapping[str, Language]) -> None:
    codes = {fold(code) for code in languages}
    taken: dict[str, str] = {}
    for code, language in languages.items():
        for name in {fold(name) for name in language.names} - {fold(code)}:
            other = code if name in codes else taken.setdefault(name, code)
            if name in codes or other != code:
                raise _Fault(("languages", code), f"the name {name} is another language's too.")


def _task(name: str, entry: Any, languages: Mapping[str, Language], path: _Path) -> Task:
    if not _NAME.fullmatch(name):
        raise _Fault(path, "a task's name has small letters, digits and underscores only.")
    _check_keys(
        entry,
        path,
        required=("template",),
        optional=(
            "description",
            "languages",
            "sources",
            "answer",
            "labels",
            "label_template",
            "unit",
            "max_words",
            "options",
            "example",
        ),
    )
    labels = {"labels", "label_template"} & entry.keys()
    answer = _one_of(entry.get("answer", "text"), ANSWERS, (*path, "answer"))
    if labels and answer != "label":
        key = labels.pop()
        raise _Fault((*path, key), f'only a task with "answer": "label" has {key}.')
    task = Task(
        name=name,
        description=_text(entry.get("description", name), (*path, "description")),
        template=_template(entry["template"], (*path, "template")),
        languages={
            slot: _languages(codes, languages, (*path, "languages", slot))
            for slot, codes in _object(entry.get("languages", {}), (*path, "languages")).items()
        },
        sources=_languages(entry.get("sources", []), languages, (*path, "sources")),
        answer=answer,
        labels=_texts(entry.get("labels", []), (*path, "labels")),
        label_template=_template(entry.get("label_template", " {label}"), (*path, "label_template")),
        unit=_one_of(entry.get("unit", "text"), UNITS, (*path, "unit")),
        max_words=_count(entry.get("max_words"), (*path, "max_words")),
        options=_options(entry.get("options", {}), (*path, "options")),
        example={
            slot: _text(text, (*path, "example", slot))
            for slot, text in _object(entry.get("example", {}), (*path, "example")).items()
        },
    )
    _check_slots(task, path)
    _check_example(task, (*path, "example"))
    return task


def _check_slots(task: Task, path: _Path) -> None:
    slots = dict.fromkeys(task.template.slots)
    for slot in task.languages:
        if slot not in slots:
            raise _Fault((*path, "languages", slot), f"the template has no slot {{{slot}}}.")
    if not task.text_slots:
        raise _Fault((*path, "template"), "it has no slot for a text, like {text}.")
    for slot in slots:
        if slot in _NO_SLOTS:
            raise _Fault((*path, "template"), f"a slot cannot be called {slot}.")
    for key, needs_text in (
        ("unit", task.unit != "text"),
        ("max_words", task.max_words is not None),
        ("answer", task.answer == "tags"),
    ):
        if needs_text and TEXT_SLOT not in task.text_slots:
            raise _Fault(
                (*path, key), f"it is about the slot {{{TEXT_SLOT}}}, which the template does not have."
            )
    if task.answer == "label" and task.unit != "text":
        raise _Fault((*path, "unit"), "a label is one text's: leave the unit out.")
    if task.label_template.slots != ("label",):
        raise _Fault((*path, "label_template"), "it must have the slot {label}, and no other.")


def _check_example(task: Task, path: _Path) -> None:
    slots = dict.fromkeys(task.template.slots)
    for slot, text in task.example.items():
        if slot not in slots:
            raise _Fault((*path, slot), f"the template has no slot {{{slot}}}.")
        if text not in task.languages.get(slot, (text,)):
            raise _Fault((*path, slot), f"{shown(text)} is not a code of this slot's languages.")
    missing = [slot for slot in slots if task.example and slot not in task.example]
    if missing:
        raise _Fault(path, f"it has no {missing[0]!r}, which the template has a slot for.")


def _options(entry: Any, path: _Path) -> Mapping[str, Any]:
    options = _object(entry, path)
    known = GenerationConfig.__dataclass_fields__
    for name in options:
        if name not in known:
            raise _Fault((*path, name), f"it is no option of GenerationConfig.{_nearest(name, known)}")
    fault = _fault_of(options)
    if fault is not None:
        alone = [name for name, value in options.items() if _fault_of({name: value}) == fault]
        raise _Fault((*path, *alone[:1]), fault)
    return options


def _fault_of(options: Mapping[str, Any]) -> str | None:
    try:
        GenerationConfig.from_dict(options)
    except InvalidInputError as error:
        return str(error)
    return None


# --- values of JSON


def _check_keys(entry: Any, path: _Path, *, required: Sequence[str], optional: Sequence[str]) -> None:
    _object(entry, path)
    for key in required:
        if key not in entry:
            raise _Fault(path, f"it has no {key!r}.")
    known = (*required, *optional)
    for key in entry:
        if key not in known:
            raise _Fault(
                (*path, key), f"this key is not known; known are {', '.join(known)}.{_nearest(key, known)}"
            )


def _object(value: Any, path: _Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Fault(path, f"it is {_shown(value)}; it must be an object.")
    for key in value:
        _check_characters(key, path)
    return value


def _text(value: Any, path: _Path) -> str:
    if not isinstance(value, str) or not value:
        raise _Fault(path, f"it is {_shown(value)}; it must be a text of at least one character.")
    _check_characters(value, path)
    return value


def _check_characters(text: str, path: _Path) -> None:
    try:
        check_characters(text)
    except InvalidInputError as error:
        raise _Fault(path, str(error)) from None


def _texts(value: Any, path: _Path) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _Fault(path, f"it is {_shown(value)}; it must be a list of texts.")
    texts = [_text(item, (*path, index)) for index, item in enumerate(value)]
    again = index_of_repeated(texts)
    if again is not None:
        raise _Fault((*path, again), f"{shown(texts[again])} stands in the list twice.")
    return tuple(texts)


def _template(value: Any, path: _Path) -> Template:
    try:
        return Template(_text(value, path))
    except InvalidInputError as error:
        raise _Fault(path, str(error)) from None


def _languages(value: Any, languages: Mapping[str, Language], path: _Path) -> dict[str, Language]:
    codes = _texts(value, path)
    for index, code in enumerate(codes):
        if code not in languages:
            raise _Fault(
                (*path, index),
                f'{shown(code)} is not a code of "languages", which names all.{_nearest(code, languages)}',
            )
    return {code: languages[code] for code in codes}


def _one_of(value: Any, allowed: Sequence[_Choice], path: _Path) -> _Choice:
    for choice in allowed:
        if value == choice:
            return choice
    raise _Fault(path, f"it is {_shown(value)}; it must be one of {', '.join(map(str, allowed))}.")


def _count(value: Any, path: _Path) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise _Fault(path, f"it is {_shown(value)}; it must be an integer of at least 1.")


def _number(value: Any, path: _Path) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise _Fault(path, f"it is {_shown(value)}; it must be a number.")


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return shortened(json.dumps(value, ensure_ascii=False))


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {nearest[0]}?" if nearest else ""
