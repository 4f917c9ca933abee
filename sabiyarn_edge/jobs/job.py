"""Runs a job: each line of a source becomes a record of an output, in order, and resumes where it was interrupted.

The rule: what stands in the output up to the last checkpoint is done; what comes behind is computed again. Results do
not depend on what runs beside them, so they are the same as without the interruption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from ..errors import InvalidInputError, JobError, NumericalError, SabiYarnError
from .ledger import Ledger, Progress, differences
from .output import Output, reason
from .pipeline import Unit, in_order
from .source import Line, Position, Source
from .window import Window

__all__ = ["Planned", "Record", "Work", "answered", "check_is_new", "resume", "run_job"]

CHECKPOINT_SECONDS = 5.0
"""At most so much work is done again after the process was killed, and one write to the disk in so much time."""
CHECKPOINT_BYTES = 2**20
"""Of records that wait in memory for a checkpoint."""

Tag = TypeVar("Tag")


class Record(NamedTuple):
    """What a line became."""

    data: bytes
    prompt_tokens: int = 0
    generated_tokens: int = 0
    is_error: bool = False


@dataclass(slots=True)
class Planned:
    """A line before the model has run."""

    units: Sequence[Unit]
    """What is to run; their outcomes go to `write`."""
    write: Callable[[list[Any]], Record]
    refuse: Callable[[SabiYarnError], Record]
    """Makes the record of an error."""


class Work(Protocol):
    """What a job does with each line."""

    def plan(self, line: Line) -> Planned | None:
        """What to run for a line; None: it has no record."""


@dataclass(slots=True)
class _Entry(Generic[Tag]):
    """A line of which something has been planned, or nothing is to be done."""

    tag: Tag
    planned: Planned | None
    left: int
    outcomes: list[Any]


def check_is_new(output: Output) -> None:
    """Refuse an output that holds something, and has no job.

    Raises:
        JobError: it does.
    """
    if not output.is_stream and output.size > 0:
        raise JobError(
            f"{output.name} is there already, and no job has written it. Give another name, or --overwrite."
        )


def resume(
    ledger: Ledger, source: Source, output: Output, settings: Mapping[str, Any], head: bytes
) -> Progress:
    """Bring source and output to where a job stands, or begin it.

    Args:
        settings: what the job is.
        head: what the output begins with.

    Raises:
        JobError: the output belongs to another job, model, option set or input, or the disk is full.
    """
    stored = ledger.settings()
    try:
        progress = (
            _begun(ledger, source, output, settings)
            if stored is None
            else _found(stored, ledger, source, output, settings)
        )
        if head and not progress.output_bytes:  # also where an earlier run ended before it was on the disk
            output.write(head)
            output.checkpoint()
            progress.output_bytes, progress.output_crc = output.nbytes, output.crc
            ledger.checkpoint(progress)
    except OSError as error:
        raise JobError(
            f"cannot begin {output.name}: {reason(error)}. Make room, and run the same command again."
        ) from error
    return progress


def _begun(ledger: Ledger, source: Source, output: Output, settings: Mapping[str, Any]) -> Progress:
    """Begin a job."""
    check_is_new(output)
    ledger.begin(settings)
    source.skip(0, 0)
    return Progress()


def _found(
    stored: Mapping[str, Any], ledger: Ledger, source: Source, output: Output, settings: Mapping[str, Any]
) -> Progress:
    """Bring source and output to where a job stands."""
    found = differences(stored, dict(settings))
    if found:
        raise JobError(
            f"{output.name} belongs to another job: {'; '.join(found)}. Give another output, or --overwrite."
        )
    progress = ledger.progress()
    if output.size < progress.output_bytes:
        raise JobError(
            f"{output.name} has {output.size} bytes, but {progress.output_bytes} were written. Bring it back, or give "
            "--overwrite."
        )
    position = source.skip(progress.input_bytes, progress.lines)
    if (position.nbytes, position.digest) != (progress.input_bytes, progress.input_digest or position.digest):
        raise JobError(
            f"{source.name} is not the input that {output.name} was made of: its first {progress.lines} lines differ. "
            "Give that input, or --overwrite."
        )
    if not source.finish_line():
        raise JobError(
            f"line {progress.lines} of {source.name} had no line break when {output.name} was made, and now "
            "it is longer. Put one where it ended, or give --overwrite."
        )
    output.rewind(progress.output_bytes, progress.output_crc)
    ledger.forget_ids_after(progress.lines)
    return progress


def run_job(
    work: Work,
    source: Source,
    output: Output,
    ledger: Ledger,
    progress: Progress,
    window: Window,
    *,
    shard: tuple[int, int] = (1, 1),
    passed: Callable[[Line], object] = lambda line: None,
    max_errors: int | None = None,
    told: Callable[[Progress, int], object] = lambda progress, nbytes: None,
    before_checkpoint: Callable[[Progress], object] = lambda progress: None,
) -> Progress:
    """Run a job to the end of its input.

    Args:
        progress: as `resume` gave it; changed.
        shard: (i, n): of the lines that are not empty every n-th, from the i-th on.
        passed: called with each line that another shard answers, in the order of the lines.
        max_errors: end when there are more records with errors; None: never.
        told: called once before the first and after each record, with the bytes of the input that are read.
        before_checkpoint: called when all records are on the disk, before the ledger says so; and with what the ledger
            says, where it could not be written.

    Raises:
        JobError: there were too many errors, or the disk is full.
    """
    checkpoints = _Checkpoints(output, ledger, progress, before_checkpoint)
    progress.complete = False
    told(progress, progress.input_bytes)
    try:
        for (line, texts), record in answered(_lines(work, source, progress.texts, shard, passed), window):
            checkpoints.end = line.end
            progress.lines, progress.input_bytes = line.end.lines, line.end.nbytes
            progress.texts = texts
            if record is None:
                checkpoints.make_if_due()  # what was noted of passed lines is to be on the disk, too
                continue
            output.write(record.data)
            progress.records += 1
            progress.errors += record.is_error
            progress.prompt_tokens += record.prompt_tokens
            progress.generated_tokens += record.generated_tokens
            progress.seconds = checkpoints.seconds
            told(progress, source.done_bytes(line.end))
            if max_errors is not None and progress.errors > max_errors:
                raise JobError(
                    f"{progress.errors} lines gave errors, but at most {max_errors} may; the last of them is line "
                    f"{progress.lines}. See {output.name}, and give more --max-errors to go on."
                )
            checkpoints.make_if_due()
        progress.complete = True
    finally:
        checkpoints.make()
    return progress


class _Checkpoints:
    """Makes what is done safe, now and then.

    Attributes:
        end: behind the last line that is done.
    """

    def __init__(
        self,
        output: Output,
        ledger: Ledger,
        progress: Progress,
        before: Callable[[Progress], object],
    ) -> None:
        self._output, self._ledger, self._progress, self._before = output, ledger, progress, before
        self._stored = replace(progress)
        self._started = time.perf_counter() - progress.seconds
        self._last = time.perf_counter()
        self._failed = False
        self.end: Position | None = None

    @property
    def seconds(self) -> float:
        """Time that the job took until now, over all its runs."""
        return time.perf_counter() - self._started

    def make_if_due(self) -> None:
        """Make one if the last is long ago, or much waits for it. Raises: as `make`."""
        old = time.perf_counter() - self._last > CHECKPOINT_SECONDS
        if old or self._output.waiting_bytes > CHECKPOINT_BYTES:
            self.make()

    def make(self) -> None:
        """Have what is done on the disk, and say so in the ledger; nothing more after a failure.

        Raises:
            JobError: there is no room for it; all is as at the checkpoint before.
        """
        if self._failed:
            return
        progress = self._progress
        progress.seconds = self.seconds
        if self.end is not None:
            progress.input_digest = self.end.digest
        try:
            self._output.checkpoint()
            progress.output_bytes, progress.output_crc = self._output.nbytes, self._output.crc
            self._before(progress)
            self._ledger.checkpoint(progress)
        except OSError as error:
            self._failed = True
            self._output.rewind(self._stored.output_bytes, self._stored.output_crc)
            with suppress(OSError):  # only what is there already is written again
                self._before(self._stored)
            raise JobError(
                f"cannot write {self._output.name}: {reason(error)}. {self._stored.records} records are safe in it. "
                "Make room, and run the same command again."
            ) from error
        self._stored, self._last = replace(progress), time.perf_counter()


def answered(
    planned: Iterable[tuple[Tag, Planned | None]], window: Window
) -> Iterator[tuple[Tag, Record | None]]:
    """Run what was planned, and yield records in its order.

    Args:
        planned: (what it is for, what to run), read as the window allows. None: it has no record.
    """
    for unit, entry in in_order(_units(planned), window):
        record = _advance(unit, entry)
        if not entry.left:
            yield entry.tag, record


def _lines(
    work: Work, source: Source, texts: int, shard: tuple[int, int], passed: Callable[[Line], object]
) -> Iterator[tuple[tuple[Line, int], Planned | None]]:
    """The lines of a source with what is planned for them, and how many lines up to each are not empty."""
    for line in source:
        mine = True
        if line.content is None or line.content.strip():
            mine = texts % shard[1] == shard[0] - 1
            texts += 1
        if not mine:
            passed(line)
        yield (line, texts), work.plan(line) if mine else None


def _units(
    planned_items: Iterable[tuple[Tag, Planned | None]],
) -> Iterator[tuple[Unit | None, _Entry[Tag]]]:
    """The units of all; for what has none, (None, its entry)."""
    for tag, planned in planned_items:
        units = planned.units if planned is not None else ()
        entry = _Entry(tag, planned, max(len(units), 1), [])
        for unit in units or (None,):
            yield unit, entry


def _advance(unit: Unit | None, entry: _Entry[Any]) -> Record | None:
    """Take the outcome of a unit; the record, if it was the line's last one."""
    entry.left -= 1
    if entry.planned is None:
        return None
    if unit is not None:
        try:
            entry.outcomes.append(unit.outcome())
        except (InvalidInputError, NumericalError) as error:  # others concern every line
            entry.outcomes.append(error)
    if entry.left:
        return None
    for outcome in entry.outcomes:
        if isinstance(outcome, SabiYarnError):
            return entry.planned.refuse(outcome)
    return entry.planned.write(entry.outcomes)
