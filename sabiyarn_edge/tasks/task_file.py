"""TaskFile: the tasks.json of a model folder. It is data: nothing in it is run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, ModelFolderError
from ..options.generation_config import GenerationConfig
from .json_lines import line_of
from .json_values import (
    Fault,
    JsonPath,
    check_keys,
    count_of,
    nearest,
    number_of,
    object_of,
    one_of,
    text_of,
    texts_of,
)
from .known_prompts import KnownPrompts
from .names import find_name, fold
from .task import ANSWERS, TEXT_SLOT, Language, Task
from .template import Template
from .units import UNITS

__all__ = ["TASKS_FILE", "TaskFile"]

TASKS_FILE = "tasks.json"
FORMAT_VERSION = 1

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NO_SLOTS = ("labels", "options", "self", "source", "special_tokens")
"""Names that a slot cannot have: they are arguments of run_task."""


@dataclass(frozen=True)
class TaskFile:
    """The tasks of a model, and the languages that they name."""

    languages: Mapping[str, Language]
    tasks: Mapping[str, Task]
    known_prompts: KnownPrompts | None = None
    """How prompts that the model cannot know are told from others; None: they are not."""

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
            text = Path(path).read_text(encoding="utf-8-sig")
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
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidInputError(
                f"{source}, line {error.lineno}: this is not JSON ({error.msg}, column {error.colno})."
            ) from error
        except RecursionError as error:
            raise InvalidInputError(
                f"{source} is not JSON that can be read: it is nested too deeply."
            ) from error
        try:
            return _task_file(values)
        except Fault as fault:
            place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in fault.path).lstrip(
                "."
            )
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
                f"this model has no task with labels of its own, so {what} cannot be {name!r}; it has "
                f"{', '.join(self.tasks)}."
            )
        return self.task(find_name(what, name, dict.fromkeys(labelled, ())) if labelled else name)


def _task_file(values: Any) -> TaskFile:
    check_keys(values, (), required=("format_version", "tasks"), optional=("languages", "known_prompts"))
    if values["format_version"] != FORMAT_VERSION:
        raise Fault(
            ("format_version",),
            f"it is {values['format_version']!r}, but this version of sabiyarn_edge reads {FORMAT_VERSION}. Update it.",
        )
    languages = {
        code: _language(code, entry, ("languages", code))
        for code, entry in object_of(values.get("languages", {}), ("languages",)).items()
    }
    _check_names_differ(languages)
    tasks = {
        name: _task(name, entry, languages, ("tasks", name))
        for name, entry in object_of(values["tasks"], ("tasks",)).items()
    }
    known = values.get("known_prompts")
    return TaskFile(languages, tasks, None if known is None else _known_prompts(known, ("known_prompts",)))


def _known_prompts(entry: Any, path: JsonPath) -> KnownPrompts:
    check_keys(entry, path, required=("least_log_prob", "note"), optional=())
    return KnownPrompts(
        number_of(entry["least_log_prob"], (*path, "least_log_prob")),
        text_of(entry["note"], (*path, "note")),
    )


def _language(code: str, entry: Any, path: JsonPath) -> Language:
    check_keys(entry, path, required=("name",), optional=("aliases",))
    return Language(
        code, text_of(entry["name"], (*path, "name")), texts_of(entry.get("aliases", []), (*path, "aliases"))
    )


def _check_names_differ(languages: Mapping[str, Language]) -> None:
    codes = {fold(code) for code in languages}
    taken: dict[str, str] = {}
    for code, language in languages.items():
        for name in {fold(name) for name in language.names} - {fold(code)}:
            other = code if name in codes else taken.setdefault(name, code)
            if name in codes or other != code:
                raise Fault(("languages", code), f"the name {name} is another language's too.")


def _task(name: str, entry: Any, languages: Mapping[str, Language], path: JsonPath) -> Task:
    if not _NAME.fullmatch(name):
        raise Fault(path, "a task's name has small letters, digits and underscores only.")
    check_keys(
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
        ),
    )
    labels = {"labels", "label_template"} & entry.keys()
    answer = one_of(entry.get("answer", "text"), ANSWERS, (*path, "answer"))
    if labels and answer != "label":
        key = labels.pop()
        raise Fault((*path, key), f'only a task with "answer": "label" has {key}.')
    task = Task(
        name=name,
        description=text_of(entry.get("description", name), (*path, "description")),
        template=_template(entry["template"], (*path, "template")),
        languages={
            slot: _languages(codes, languages, (*path, "languages", slot))
            for slot, codes in object_of(entry.get("languages", {}), (*path, "languages")).items()
        },
        sources=_languages(entry.get("sources", []), languages, (*path, "sources")),
        answer=answer,
        labels=texts_of(entry.get("labels", []), (*path, "labels")),
        label_template=_template(entry.get("label_template", " {label}"), (*path, "label_template")),
        unit=one_of(entry.get("unit", "text"), UNITS, (*path, "unit")),
        max_words=count_of(entry.get("max_words"), (*path, "max_words")),
        options=_options(entry.get("options", {}), (*path, "options")),
    )
    _check_slots(task, path)
    return task


def _check_slots(task: Task, path: JsonPath) -> None:
    slots = task.template.slots
    for slot in task.languages:
        if slot not in slots:
            raise Fault((*path, "languages", slot), f"the template has no slot {{{slot}}}.")
    if not task.text_slots:
        raise Fault((*path, "template"), "it has no slot for a text, like {text}.")
    for slot in slots:
        if slot in _NO_SLOTS:
            raise Fault((*path, "template"), f"a slot cannot be called {slot}.")
    for key, needs_text in (
        ("unit", task.unit != "text"),
        ("max_words", task.max_words is not None),
        ("answer", task.answer == "tags"),
    ):
        if needs_text and TEXT_SLOT not in task.text_slots:
            raise Fault(
                (*path, key), f"it is about the slot {{{TEXT_SLOT}}}, which the template does not have."
            )
    if task.answer == "label" and task.unit != "text":
        raise Fault((*path, "unit"), "a label is one text's: leave the unit out.")
    if task.label_template.slots != ("label",):
        raise Fault((*path, "label_template"), "it must have the slot {label}, and no other.")


def _options(entry: Any, path: JsonPath) -> Mapping[str, Any]:
    options = object_of(entry, path)
    known = GenerationConfig.__dataclass_fields__
    for name in options:
        if name not in known:
            raise Fault((*path, name), f"it is no option of GenerationConfig.{nearest(name, known)}")
    fault = _fault_of(options)
    if fault is not None:
        alone = [name for name, value in options.items() if _fault_of({name: value}) == fault]
        raise Fault((*path, *alone[:1]), fault)
    return options


def _fault_of(options: Mapping[str, Any]) -> str | None:
    try:
        GenerationConfig.from_dict(options)
    except InvalidInputError as error:
        return str(error)
    return None


def _template(value: Any, path: JsonPath) -> Template:
    try:
        return Template(text_of(value, path))
    except InvalidInputError as error:
        raise Fault(path, str(error)) from None


def _languages(value: Any, languages: Mapping[str, Language], path: JsonPath) -> dict[str, Language]:
    codes = texts_of(value, path)
    for index, code in enumerate(codes):
        if code not in languages:
            raise Fault(
                (*path, index),
                f'{code!r} is not a code of "languages", which names all.{nearest(code, languages)}',
            )
    return {code: languages[code] for code in codes}
