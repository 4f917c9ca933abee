"""sabiyarn-edge score: gives the log-probability and perplexity of each line of a file."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from ..errors import InvalidInputError
from .loading import add_loading_options, load
from .parser import Parser
from .progress import ProgressLine
from .terminal import PROGRAM
from .text_lines import add_arguments, decoded_lines, opened

if TYPE_CHECKING:
    from ..calls.scoring import Score

__all__ = ["add_to", "run"]

EPILOG = f"""\
output: one line for each text, in columns with tabs between them
  line number, tokens, log-probability of all but the first token (with --given: of all), perplexity

examples:
  {PROGRAM} score corpus.txt
  {PROGRAM} score --json --model FOLDER - < corpus.txt
  {PROGRAM} score yoruba.txt --given prompts.txt
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
        "--given",
        metavar="SOURCE",
        help="file whose line each line of FILE continues; that line is not scored",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per text, with each token's number"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary on standard error")
    add_loading_options(parser, overflow=("error", "slide"))


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with ExitStack() as stack:
        file = stack.enter_context(opened(arguments.file))
        given = None if arguments.given is None else stack.enter_context(opened(arguments.given))
        generator = load(arguments)
        line, sums = ProgressLine(shown=not arguments.quiet), _Sums()
        size, read = _size(file), _Read()
        pairs = _texts(file, arguments.file, given, arguments.given, read)
        if given is None:
            scores = generator.score(text for text, _ in pairs)
        else:
            texts, sources = itertools.tee(pairs)
            scores = generator.score((text for text, _ in texts), (source for _, source in sources))
        for score in scores:
            number, done = read.lines.popleft()
            line.hide()
            print(_as_json(number, score) if arguments.json else _as_columns(number, score), flush=True)
            sums.add(score)
            line.show(sums.text, done, size)
        line.hide()
    if not arguments.quiet:
        print(f"[{sums.text}]", file=sys.stderr)


class _Read:
    """What is read ahead: (number, bytes of the file up to its end) of each line that is not scored yet."""

    def __init__(self) -> None:
        self.lines: deque[tuple[int, int]] = deque()
        self.nbytes = 0

    def count(self, nbytes: int) -> None:
        """Count bytes of the file."""
        self.nbytes += nbytes


def _texts(
    file: BinaryIO, file_name: str, given: BinaryIO | None, name: str, read: _Read
) -> Iterator[tuple[str, str]]:
    """(line, line that it continues) of the lines that are not empty.

    Raises:
        InvalidInputError: the two files differ in length, or a line continues an empty one.
    """
    texts = decoded_lines(file, file_name, read.count)
    sources = itertools.repeat("") if given is None else decoded_lines(given, name)
    for number in itertools.count(1):
        text, source = next(texts, None), next(sources, None)
        if text is None and (source is None or given is None):
            return
        if text is None or source is None:
            more, fewer = ("FILE", name) if source is None else (name, "FILE")
            raise InvalidInputError(
                f"{more} has a line {number}, but {fewer} has not. Both must have a line for each text."
            )
        if text and not source and given is not None:
            raise InvalidInputError(
                f"line {number} of {name} is empty, but line {number} of {file_name} continues it. Give it at least a "
                "word, or empty both."
            )
        if text:
            read.lines.append((number, read.nbytes))
            yield text, source


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


class _Sums:
    """The sums over the texts so far."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._texts = self._tokens = self._scored = 0
        self._total = 0.0

    def add(self, score: Score) -> None:
        """Count a text."""
        self._texts += 1
        self._tokens += len(score.token_ids)
        self._scored += len(score.log_probs)
        self._total += score.total

    @property
    def text(self) -> str:
        """For the progress line and the summary."""
        if not self._texts:
            return "no texts: there is no line, or all are empty"
        over_all = (
            f"perplexity {math.exp(-self._total / self._scored):.4f} over all"
            if self._scored
            else "no token scored"
        )
        speed = self._tokens / (time.perf_counter() - self._started)
        return f"{self._texts} texts; {self._tokens} tokens; {over_all}; {speed:.1f} tokens/s"
