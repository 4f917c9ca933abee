"""sabiyarn-edge batch: answers each line of a file, and resumes where it was interrupted."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError, shown
from .generate import add_decoding_options, as_utf8, decoding_options
from .loading import add_loading_options, add_model_option, load, loading_arguments
from .parser import Parser
from .progress import ProgressLine, Speed, duration
from .terminal import PROGRAM, say

if TYPE_CHECKING:
    from ..jobs.batch import Workers
    from ..jobs.ledger import Progress

__all__ = ["add_task_options", "add_to", "labels_of", "run", "slots_of"]

EPILOG = f"""\
INPUT is plain text with a prompt, or a task's text, in each line; or JSONL (by its ending, or --format jsonl), each
line an object with "prompt" or the task's slots, "id" and "options"; or OpenAI's batch format. Empty lines are skipped.

OUTPUT has a JSON object for each line, in order: "id" (or the line's number) with "text", or with "error". The same
command goes on after an interruption; OUTPUT.job knows where.

exit code 1: a line gave an error

examples:
  {PROGRAM} batch prompts.txt out.jsonl --max-new-tokens 40
  {PROGRAM} batch corpus.jsonl.gz out.jsonl.gz --task translate --to yor --model FOLDER
  {PROGRAM} batch corpus.txt part3.jsonl --task translate --to yor --shard 3/8
  {PROGRAM} batch --merge part1.jsonl part2.jsonl all.jsonl
  {PROGRAM} batch corpus.parquet out.parquet --task translate --to yor --engine ray --ray-address auto
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "batch",
        help="answer each line of a file, overnight",
        description="Answers each line of INPUT, and writes a record for each to OUTPUT.",
        usage=f"{PROGRAM} batch INPUT OUTPUT [options]\n       {PROGRAM} batch --merge PART [PART ...] OUTPUT",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help='INPUT and OUTPUT; "-" is standard input or output; .gz and .parquet by ending',
    )
    add_model_option(parser)
    _add_lines(parser)
    _add_job(parser)
    _add_cluster(parser)
    add_decoding_options(parser)
    add_loading_options(parser)


def _add_lines(parser: Parser) -> None:
    group = parser.add_argument_group("lines")
    add_task_options(group)
    group.add_argument("--source", metavar="LANGUAGE", help="language of the texts (default: not checked)")
    group.add_argument(
        "--special-tokens",
        action="store_true",
        help='read special tokens in texts as such; else "<yor>" is text',
    )
    group.add_argument("--format", choices=("lines", "jsonl"), help="of INPUT (default: by its ending)")
    group.add_argument("--ids", action="store_true", help="records hold the generated token ids, too")


def add_task_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that say what is done with each line."""
    group.add_argument(
        "--task",
        metavar="NAME",
        help=f"task to run on each line (see `{PROGRAM} tasks`); none: lines are prompts",
    )
    group.add_argument(
        "--to", metavar="LANGUAGE", help="language to translate into: the same as --slot to=LANGUAGE"
    )
    group.add_argument(
        "--slot",
        action="append",
        type=_slot,
        default=[],
        metavar="NAME=TEXT",
        help="what fills a slot of the task in every line; several times",
    )
    group.add_argument("--labels", metavar="LABELS", help="labels to choose from, with commas between them")


def _add_job(parser: Parser) -> None:
    group = parser.add_argument_group("job")
    group.add_argument("--rows", type=int, default=32, metavar="N", help="most texts at once (32)")
    group.add_argument("--shard", metavar="I/N", help="do the I-th of N parts, as one of N machines")
    group.add_argument(
        "--merge", action="store_true", help="join the outputs of all shards; all but the last FILE"
    )
    group.add_argument(
        "--max-errors", type=int, metavar="N", help="end when more lines gave errors (default: never)"
    )
    group.add_argument("--overwrite", action="store_true", help="begin anew if OUTPUT is there already")
    group.add_argument("--quiet", action="store_true", help="no progress and no summary on standard error")


def _add_cluster(parser: Parser) -> None:
    group = parser.add_argument_group("cluster (needs the extra [ray])")
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="who answers: this process, or actors of Ray",
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="auto, or HOST:PORT of the head node (default: this machine alone)",
    )
    group.add_argument(
        "--ray-actors", type=int, metavar="N", help="actors (default: as the cluster has CPUs)"
    )
    group.add_argument("--ray-cpus", type=int, metavar="N", help="CPUs, and threads, of each actor (1)")


def _slot(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not NAME=TEXT")
    return name, value


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    if arguments.merge:
        return _merge(arguments)
    if len(arguments.files) != 2:
        arguments.parser.error(f"INPUT and OUTPUT are needed; files given: {len(arguments.files)}")
    if arguments.max_errors is not None and arguments.max_errors < 0:
        raise InvalidInputError(f"--max-errors is {arguments.max_errors}; it must be at least 0.")
    options = decoding_options(arguments)
    workers = _workers(arguments)
    generator = load(arguments)

    from ..jobs import run_batch

    line = ProgressLine(shown=not arguments.quiet)
    speed = Speed()

    def told(progress: Progress, done: int, total: int) -> None:
        speed.count(progress.records, progress.generated_tokens)
        errors = f", {progress.errors} with errors" if progress.errors else ""
        line.show(f"{progress.records} records{errors}; {speed.rates}", done, total)

    try:
        summary = run_batch(
            generator,
            *arguments.files,
            task=arguments.task,
            slots=slots_of(arguments),
            source=arguments.source,
            labels=labels_of(arguments),
            special_tokens=arguments.special_tokens,
            options=options,
            format=arguments.format,
            ids=arguments.ids,
            shard=arguments.shard,
            max_errors=arguments.max_errors,
            rows=arguments.rows,
            overwrite=arguments.overwrite,
            workers=workers,
            told=told,
        )
    except KeyboardInterrupt:
        line.hide()
        if speed.records and arguments.files[1] != "-":
            say(f"interrupted after {speed.records} records. The same command goes on from there.")
        raise
    finally:
        line.hide()
    if not arguments.quiet:
        resumed = f" ({summary.resumed_records} of them before)" if summary.resumed_records else ""
        print(
            f"[{summary.records} records{resumed}, {summary.errors} with errors; {summary.prompt_tokens} prompt and "
            f"{summary.generated_tokens} new tokens; {duration(summary.seconds)}; {speed.rates}]",
            file=sys.stderr,
        )
    return 1 if summary.errors else 0


def _workers(arguments: argparse.Namespace) -> Workers | None:
    """Who answers the lines: None is this process."""
    if arguments.engine == "local":
        for name in ("ray_address", "ray_actors", "ray_cpus"):
            if getattr(arguments, name) is not None:
                raise InvalidInputError(
                    f"--{name.replace('_', '-')} belongs to --engine ray. Give that, too."
                )
        return None
    if arguments.num_threads is not None:
        raise InvalidInputError("--threads is for one process. With --engine ray give --ray-cpus.")
    from ..ray import RayActors

    return RayActors(
        arguments.model,
        address=arguments.ray_address,
        actors=arguments.ray_actors,
        num_cpus=1 if arguments.ray_cpus is None else arguments.ray_cpus,
        rows=arguments.rows,
        **loading_arguments(arguments),
    )


def labels_of(arguments: argparse.Namespace) -> list[str] | None:
    """What --labels gives."""
    return None if arguments.labels is None else [label.strip() for label in arguments.labels.split(",")]


def slots_of(arguments: argparse.Namespace) -> dict[str, str]:
    """What --to and --slot give."""
    slots: dict[str, Any] = {}
    for name, value in [*arguments.slot, *([("to", arguments.to)] if arguments.to is not None else [])]:
        if name in slots:
            raise InvalidInputError(f"the slot {name} is given twice. Leave out one of the two.")
        slots[name] = as_utf8(value)
    return slots


def _merge(arguments: argparse.Namespace) -> int:
    from ..jobs import merge_shards

    if len(arguments.files) < 2:
        arguments.parser.error("--merge needs the outputs of all shards, and then a name for the whole")
    for action in arguments.parser._actions:
        name = action.dest
        if (
            name not in ("files", "merge", "quiet")
            and getattr(arguments, name, action.default) != action.default
        ):
            arguments.parser.error(
                f"{action.option_strings[-1]} does not go with --merge, which answers nothing"
            )
    *parts, output = arguments.files
    records = merge_shards(parts, output)
    if not arguments.quiet:
        print(f"[{records} records of {len(parts)} shards; complete]", file=sys.stderr)
    return 0
