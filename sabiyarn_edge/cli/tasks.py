"""sabiyarn-edge tasks: lists a model's tasks; and a command for each task, like sabiyarn-edge translate."""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError
from .generate import add_any_option, as_utf8, read_text
from .loading import DEFAULT_MODEL, OVERFLOW, add_loading_options, add_model_option, load
from .parser import SLOT_PREFIX, Parser
from .prompt_note import PromptNote
from .terminal import PROGRAM, printable
from .text_lines import decoded_lines, opened

if TYPE_CHECKING:
    from ..generator import EdgeGenerator
    from ..tasks.task import Task

__all__ = ["add_task_of_folder", "add_to", "run"]

LINES_TOGETHER = 32
"""Lines that are read before the first of them is answered, and run together."""

EPILOG = f"""\
A task is a command of its own, with - for _:
  {PROGRAM} translate --to yor "..."
  {PROGRAM} diacritize --lines --model FOLDER < plain.txt > marked.txt
"""


@dataclass(frozen=True)
class Verb:
    """A command that runs a task."""

    name: str
    task: str
    help: str
    main: str = "text"
    """The slot that the command's argument, or standard input, fills."""
    slots: tuple[str, ...] = ()
    """Slots that options fill."""
    has_labels: bool = False
    """Whether it scores labels and generates no text. It then has no --overflow, which would do nothing."""


VERBS = (
    Verb("translate", "translate", "translate a text", slots=("to",)),
    Verb("diacritize", "diacritize", "put tone marks and dots on a text"),
    Verb("clean", "clean", "correct a text"),
    Verb("classify", "", "say how likely labels are for a text", has_labels=True),
    Verb("tag-entities", "tag_entities", "find the names in a text"),
    Verb("identify-language", "identify_language", "say which language a text is in", has_labels=True),
    Verb("summarize", "summarize", "summarize a text"),
    Verb("headline", "headline", "write a headline for a text"),
    Verb("answer", "answer", "answer a question about a text", main="question", slots=("context",)),
    Verb("instruct", "instruct", "follow an instruction", main="instruction"),
)

_HELP_OF_SLOTS = {
    "to": ("LANGUAGE", "language to translate into: code or name, like yor or Yoruba"),
    "language": ("LANGUAGE", "language: code or name, like yor or Yoruba"),
    "context": ("TEXT", "text that tells the answer"),
}


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add these commands to the parser."""
    for verb in VERBS:
        _add_verb(commands, verb)
    parser = commands.add_parser(
        "tasks",
        help="list what a model can be asked to do",
        description="Lists the tasks of a model folder, with their languages and labels.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", default=DEFAULT_MODEL, help="model folder, or nano (default)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_task_of_folder(commands: argparse._SubParsersAction[Parser], argv: Sequence[str]) -> None:
    """Add the command of a task that only the model's folder knows, if that is what the arguments ask for."""
    name = argv[0] if argv else ""
    if name.startswith("-") or name in commands.choices:
        return
    models = [after for before, after in itertools.pairwise(argv) if before == "--model"]
    models += [word.removeprefix("--model=") for word in argv if word.startswith("--model=")]
    task = _tasks_of(models[-1] if models else DEFAULT_MODEL).get(name.replace("-", "_"))
    if task is not None:
        main, *others = task.text_slots
        slots = (*task.languages, *others)
        verb = Verb(name, task.name, printable(task.description), main, slots, task.answer == "label")
        try:
            _add_verb(commands, verb)
        except argparse.ArgumentError as error:
            raise InvalidInputError(
                f"the task {task.name} has a slot with the name of an option, {error.argument_name}. Rename the slot, "
                f"or run `{PROGRAM} batch --task {task.name} --slot NAME=TEXT`."
            ) from None


def _tasks_of(model: str) -> dict[str, Task]:
    from ..errors import ModelFolderError
    from ..generator import find_model
    from ..tasks.task_file import TaskFile

    try:
        return dict(TaskFile.load(find_model(model)).tasks)
    except ModelFolderError:  # the parser's own error comes first: there is no such command
        return {}


def _add_verb(commands: argparse._SubParsersAction[Parser], verb: Verb) -> None:
    parser = commands.add_parser(
        verb.name,
        help=verb.help.replace("%", "%%"),
        description=f"{verb.help[0].upper()}{verb.help[1:]}, as the model's tasks.json says (see `{PROGRAM} tasks`).",
    )
    parser.set_defaults(run=functools.partial(run_task, verb=verb), parser=parser)
    parser.add_argument(
        "text", metavar=verb.main.upper(), nargs="?", default="-", help='"-", or nothing: from standard input'
    )
    for slot in verb.slots:
        metavar, text = _HELP_OF_SLOTS.get(slot, ("TEXT", f"the task's {slot}"))
        parser.add_argument(
            f"--{slot.replace('_', '-')}", dest=SLOT_PREFIX + slot, required=True, metavar=metavar, help=text
        )
    if verb.name == "translate":
        parser.add_argument(
            "--source", metavar="LANGUAGE", help="language of the text (default: not checked)"
        )
    if verb.name == "classify":
        parser.add_argument(
            "--labels",
            required=True,
            metavar="LABELS",
            help="a task that has labels, like sentiment or topic, or labels with commas between them",
        )
    add_model_option(parser)
    parser.add_argument(
        "--lines", action="store_true", help="each line is a text of its own; the output has a line for each"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each text")
    parser.add_argument(
        "--special-tokens",
        action="store_true",
        help='read special tokens in the text as such; otherwise "<yor>" is text',
    )
    add_any_option(parser, "an option of GenerationConfig in place of the task's, like num_beams=1")
    add_loading_options(parser, overflow=() if verb.has_labels else OVERFLOW)


def run_task(arguments: argparse.Namespace, *, verb: Verb) -> None:
    """Run the command of a task."""
    from ..tasks.runner import TaskRunner

    generator = load(arguments)
    name, labels = verb.task, None
    if not name:
        name, labels = _classifier(generator, arguments.labels)
    generator.tasks.task(name)  # refuse what the model does not do before standard input is read
    settings: dict[str, Any] = {
        "source": getattr(arguments, "source", None),
        "labels": labels,
        "options": dict(arguments.option),
        "special_tokens": arguments.special_tokens,
    }
    others = {slot: as_utf8(getattr(arguments, SLOT_PREFIX + slot)) for slot in verb.slots}
    runner, note = TaskRunner(generator, generator.tasks), PromptNote(generator)

    def ask(given: str | list[str]) -> Any:
        slots = {**others, verb.main: given}
        note.check(lambda: [prompt for prompt, _ in runner.plan(name, slots, **settings)[0].prompts])
        return runner.run(name, slots, **settings)

    if not arguments.lines:
        _print(ask(read_text(arguments.text)), arguments, one_line=False)
        return
    for lines in _grouped(_lines(arguments.text)):
        texts = [line for line in lines if line.strip()]
        answers = iter(ask(texts) if texts else ())
        for line in lines:
            if line.strip():
                _print(next(answers), arguments, one_line=True)
            else:
                print("null" if arguments.json else "", flush=True)


def _classifier(generator: EdgeGenerator, labels: str) -> tuple[str, list[str] | None]:
    """The task, and the labels to give it."""
    if "," in labels:
        return "classify", [as_utf8(label.strip()) for label in labels.split(",")]
    return generator.tasks.classifier(labels, "--labels").name, None


def _lines(argument: str) -> Iterator[str]:
    if argument != "-":
        yield from as_utf8(argument).splitlines()
    else:
        yield from decoded_lines(opened("-"), "-")


def _grouped(lines: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(lines)
    while group := list(itertools.islice(waiting, LINES_TOGETHER)):
        yield group


def _print(answer: Any, arguments: argparse.Namespace, *, one_line: bool) -> None:
    from ..jobs.records import answer_fields
    from ..tasks.answers import Classification

    if arguments.json:
        text = json.dumps(answer_fields(answer), ensure_ascii=False)
    elif isinstance(answer, str):
        text = " ".join(answer.splitlines()) if one_line else answer.removesuffix("\n")
    elif isinstance(answer, Classification):
        shown = list(answer.probabilities.items())[: 1 if one_line else None]
        text = "\n".join(f"{printable(label)}\t{probability:.4f}" for label, probability in shown)
    else:
        columns = [f"{entity.label}\t{entity.start}\t{entity.end}\t{entity.text}" for entity in answer]
        text = ("\t" if one_line else "\n").join(columns)
    if text or one_line:
        print(text, flush=True)


def run(arguments: argparse.Namespace) -> None:
    """List the tasks."""
    from ..generator import find_model
    from ..tasks.task_file import TASKS_FILE, TaskFile

    folder = find_model(arguments.model)
    tasks = TaskFile.load(folder).tasks
    if arguments.json:
        print(json.dumps({name: task.describe() for name, task in tasks.items()}, ensure_ascii=False))
        return
    if not tasks:
        raise InvalidInputError(
            f"{folder} has no {TASKS_FILE}, so the model has no tasks. Write one: see docs/tasks.md."
        )
    print(printable("\n".join(line for task in tasks.values() for line in _as_text(task))))


def _as_text(task: Task) -> Iterator[str]:
    yield f"{task.name}: {task.description}"
    yield f"  template   {task.template.source}"
    for slot, languages in task.languages.items():
        yield f"  {slot:<10} {', '.join(f'{code} ({language.name})' for code, language in languages.items())}"
    if task.sources:
        yield f"  {'from':<10} {', '.join(f'{code} ({language.name})' for code, language in task.sources.items())}"
    if task.labels:
        yield f"  {'labels':<10} {', '.join(task.labels)}"
    if task.options:
        yield f"  {'options':<10} {', '.join(f'{name}={json.dumps(value)}' for name, value in task.options.items())}"
