"""sabiyarn-edge score: gives the log-probability and perplexity of each line of a file."""

from __future__ import annotations

import argparse
import json
import math
import os
import stat
import sys
import time
from typing import TYPE_CHECKING, BinaryIO

from .parser import Parser
from .terminal import PROGRAM
from .text_lines import add_arguments, lines_of, opened

if TYPE_CHECKING:
    from ..calls.scoring import Score

__all__ = ["add_to", "run"]

EPILOG = f"""\
output: one line for each text, in columns with tabs between them
  line number, tokens, log-probability of all but the first token, perplexity

examples:
  {PROGRAM} score corpus.txt
  {PROGRAM} score --json --model FOLDER - < corpus.txt
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "score",
        help="log-probability and perplexity of texts",
        description="Scores each line of FILE (UTF-8; empty lines are skipped) and, on standard error, all of them.",
        epilog=EPILOG,
    )
    parser.set_defaults(run=run, parser=parser)
    add_arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per text, with each token's number"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary on standard error")
    parser.add_argument(
        "--overflow",
        choices=("error", "slide"),
        default="error",
        help="texts longer than the model's positions: refuse them (default), or forget their oldest half as needed",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from ..generator import EdgeGenerator

    with opened(arguments.file) as file:
        generator = EdgeGenerator.from_pretrained(
            arguments.model,
            num_threads=arguments.threads,
            overflow=arguments.overflow,
        )
        progress = _Progress(_size(file), show=not arguments.quiet and sys.stderr.isatty())
        numbers: list[int] = []  # of the line at hand
        for score in generator.score(lines_of(file, numbers, progress.read)):
            progress.hide()
            print(
                _as_json(numbers[-1], score) if arguments.json else _as_columns(numbers[-1], score),
                flush=True,
            )
            progress.add(score)
            numbers.clear()
    progress.hide()
    if not arguments.quiet:
        print(progress.summary(), file=sys.stderr)


def _size(file: BinaryIO) -> int:
    """Return the bytes of a file; 0 for a pipe or a terminal, whose end is unknown."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # not a real file, as in tests
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _as_columns(number: int, score: Score) -> str:
    return f"{number}\t{len(score.token_ids)}\t{score.total:.4f}\t{score.perplexity:.4f}"


def _as_json(number: int, score: Score) -> str:
    perplexity = None if math.isnan(score.perplexity) else score.perplexity
    return json.dumps(
        {
            "line": number,
            "token_ids": score.token_ids,
            "log_probs": [float(value) for value in score.log_probs],
            "total": score.total,
            "perplexity": perplexity,
        }
    )


class _Progress:
    """A progress line on the terminal, and the sums of its last state.

    Args:
        total_bytes: size of the file, for the bar; 0: unknown, no bar.
    """

    def __init__(self, total_bytes: int, *, show: bool) -> None:
        self._total_bytes, self._bytes_read = total_bytes, 0
        self._show, self._shown_at, self._shown = show, 0.0, False
        self._started = time.perf_counter()
        self._texts = self._tokens = self._scored = 0
        self._total = 0.0

    def read(self, nbytes: int) -> None:
        """Count bytes of the file."""
        self._bytes_read += nbytes

    def add(self, score: Score) -> None:
        """Count a text."""
        self._texts += 1
        self._tokens += len(score.token_ids)
        self._scored += len(score.log_probs)
        self._total += score.total
        if self._show and time.perf_counter() - self._shown_at > 0.2:  # seconds
            sys.stderr.write(self.bar() + self.summary())
            sys.stderr.flush()
            self._shown_at, self._shown = time.perf_counter(), True

    def hide(self) -> None:
        """Clear the line, before anything else is written."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False

    def bar(self) -> str:
        """Return how much of the file is read: 20 signs and the percentage."""
        if self._total_bytes == 0:
            return ""
        done = min(self._bytes_read / self._total_bytes, 1.0)
        return f"|{'#' * int(20 * done):<20}| {100 * done:3.0f} % "

    def summary(self) -> str:
        """Return the sums over the texts so far."""
        perplexity = math.exp(-self._total / self._scored) if self._scored else math.nan
        speed = self._tokens / (time.perf_counter() - self._started)
        return (
            f"[{self._texts} texts; {self._tokens} tokens; perplexity {perplexity:.4f} over all; "
            f"{speed:.1f} tokens/s]"
        )
