"""sabiyarn-edge embed: gives a vector for each line of a file."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..calls.pooling import POOLINGS
from .loading import add_loading_options, load
from .parser import Parser
from .progress import ProgressLine, Speed, duration
from .terminal import PROGRAM
from .text_lines import add_arguments

if TYPE_CHECKING:
    from ..jobs.ledger import Progress

__all__ = ["add_to", "run"]

EPILOG = f"""\
output: with --output a .npy file, row i for line i + 1; empty lines and errors are NaN. The same command goes on after
an interruption. Without it one JSON object for each line that is not empty: its number, and its embedding or error

exit code 1: a line gave an error

examples:
  {PROGRAM} embed corpus.txt --output vectors.npy --dtype float16
  {PROGRAM} embed --normalize corpus.txt > vectors.jsonl
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "embed",
        help="vectors of texts",
        description="Gives each line of FILE (UTF-8) as a vector: the model's hidden states.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    add_arguments(parser)
    parser.add_argument(
        "--pooling",
        choices=POOLINGS,
        default="mean",
        help="mean of all tokens' hidden states (default), or the last token's",
    )
    parser.add_argument("--normalize", action="store_true", help="vectors of length 1")
    parser.add_argument("--output", default="-", metavar="FILE", help="vectors.npy; any other ending: JSON")
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="of a .npy file (float32)"
    )
    parser.add_argument("--rows", type=int, default=32, metavar="N", help="most texts at once (32)")
    parser.add_argument("--overwrite", action="store_true", help="begin anew if the output is there already")
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary on standard error")
    add_loading_options(parser, overflow=())


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    from ..jobs.vectors import embed_file

    generator = load(arguments)
    line, speed = ProgressLine(shown=not arguments.quiet), Speed()

    def told(progress: Progress, done: int, total: int) -> None:
        speed.count(progress.records, progress.prompt_tokens)
        errors = f", {progress.errors} with errors" if progress.errors else ""
        line.show(f"{progress.records} lines{errors}; {speed.rates}", done, total)

    try:
        summary = embed_file(
            generator,
            arguments.file,
            arguments.output,
            pooling=arguments.pooling,
            normalize=arguments.normalize,
            dtype=arguments.dtype,
            rows=arguments.rows,
            overwrite=arguments.overwrite,
            told=told,
        )
    finally:
        line.hide()
    if not arguments.quiet and arguments.output != "-":
        print(
            f"[{summary.records} lines, {summary.errors} with errors; {summary.prompt_tokens} tokens; "
            f"{duration(summary.seconds)}; {speed.rates}]",
            file=sys.stderr,
        )
    return 1 if summary.errors else 0
