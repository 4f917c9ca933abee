"""run_batch: answers each line of a file, and writes a record for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import InvalidInputError, shown
from ..generator import EdgeGenerator
from ..options.checks import integer, path
from ..system.available_memory import AvailableMemory
from .asking import Asking
from .job import check_is_new, resume, run_job
from .ledger import LEDGER_SUFFIX, Ledger, Progress
from .lines import FORMATS, Format, Request, format_of
from .output import Output, check_is_file
from .parquet import check_pyarrow, is_parquet, read_rows, records_of, write_records
from .pipeline import Unit
from .shard import Shard, read_shard
from .source import Source
from .window import Window

__all__ = [
    "DEFAULT_ROWS",
    "BatchSummary",
    "Workers",
    "identity_of",
    "open_files",
    "run_batch",
    "window_for",
]

DEFAULT_ROWS = 32
"""Rows at once: more take memory, and hardly make a CPU faster."""
_WAITING_LINES = 512
"""Units that are read before the first of them is written: enough that a long one keeps no row idle."""
_MEMORY_SHARE = 4
"""A quarter of the memory at hand is for keys and values."""


@dataclass(frozen=True, kw_only=True)
class BatchSummary:
    """What a job has done, over all its runs."""

    records: int
    """Lines that have a record."""
    errors: int
    """Of them those with an error."""
    prompt_tokens: int
    generated_tokens: int
    seconds: float
    resumed_records: int
    """Records that earlier runs had written."""

    @classmethod
    def of(cls, progress: Progress, resumed: int) -> BatchSummary:
        """The summary of a job that has come so far."""
        return cls(
            records=progress.records,
            errors=progress.errors,
            prompt_tokens=progress.prompt_tokens,
            generated_tokens=progress.generated_tokens,
            seconds=progress.seconds,
            resumed_records=resumed,
        )


class Workers(Protocol):
    """Processes that answer a job's lines, like `sabiyarn_edge.ray.RayActors`."""

    window: Window
    """How much they are given at once."""

    def begin(
        self, identity: Mapping[str, Any], arguments: Mapping[str, Any], seed: int
    ) -> Callable[[Request, int], Unit]:
        """Start them.

        Args:
            identity: of the model that they must have.
            arguments: of their `Asking`.
            seed: from which those of the lines are derived.

        Returns:
            What makes the unit that answers a line, given its number; its outcome is a Record.
        """

    def close(self) -> None:
        """End them."""


def run_batch(
    generator: EdgeGenerator,
    input: str | Path | Iterable[str | Mapping[str, Any]],
    output: str | Path,
    *,
    task: str | None = None,
    slots: Mapping[str, str] | None = None,
    source: str | None = None,
    labels: Sequence[str] | None = None,
    special_tokens: bool = False,
    options: Mapping[str, Any] | None = None,
    format: Format | None = None,
    ids: bool = False,
    shard: str | None = None,
    max_errors: int | None = None,
    rows: int = DEFAULT_ROWS,
    overwrite: bool = False,
    workers: Workers | None = None,
    told: Callable[[Progress, int, int], object] | None = None,
) -> BatchSummary:
    """Answer each line of an input, and write a record for each, in order.

    Called again after an interruption of any kind, it goes on where it was. Lines that cannot be answered become
    records with an error.

    Args:
        generator: the model.
        input: a path ("-": standard input; .gz: compressed; .parquet: a row is a line of JSONL), or strings and
            mappings. Empty lines have no record.
        output: a path ("-": standard output, which nothing can be resumed on; .gz: compressed). Beside it stands its
            ledger, OUTPUT.job. With the ending .parquet it is made at the end of OUTPUT.jsonl.
        task: of the model's tasks.json; None: lines are prompts.
        slots: what fills the task's template where a line does not say, like {"to": "yor"}.
        source, labels, special_tokens: as `EdgeGenerator.run_task` takes them.
        options: of GenerationConfig, on top of the model's and the task's. Where tokens are drawn, each line has a seed
            of its own, derived from its id and the option seed (None: 0), so that a job gives the same texts again.
        format: "lines" or "jsonl"; None: by the input's ending.
        ids: whether records hold the generated ids.
        shard: "3/8": of the lines that are not empty every eighth, from the third on; None: all.
        max_errors: end with a JobError when more lines than that gave errors; None: never.
        rows: most that run at once.
        overwrite: begin anew if there is an output already.
        workers: who answers the lines, and is closed at the end; None: this process. Records are the same.
        told: called after each record: how far the job is, bytes of the input that are read, and all its bytes (0: not
            known).

    Returns:
        BatchSummary.

    Raises:
        InvalidInputError: an argument is not allowed, or a file cannot be opened.
        JobError: the output is another job's, is held by a process, has no room, or there were too many errors.
    """
    arguments: dict[str, Any] = {
        "task": task,
        "slots": slots,
        "source": source,
        "labels": labels,
        "special_tokens": special_tokens,
        "options": options,
        "with_ids": ids,
    }
    path("output", output)
    asking = Asking(generator, **arguments)
    part: Shard = (1, 1) if shard is None else read_shard(shard)
    if format is not None and format not in FORMATS:
        raise InvalidInputError(f"format is {shown(format)}; it must be one of {', '.join(FORMATS)}.")
    is_rows = is_parquet(input) or not isinstance(input, str | Path)
    if is_rows and format == "lines":
        raise InvalidInputError(
            "format is lines, but the input has rows: they are read as jsonl. Leave it out."
        )
    asking.expect(format or ("jsonl" if is_rows else format_of(str(input))))
    window = window_for(generator, rows)
    check_pyarrow(input, output)
    if is_parquet(output):
        check_is_file(output, "Give a file.")
    if is_parquet(input) and is_parquet(output):
        _check_differ(Path(str(input)), Path(output))
    written = records_of(output)
    with ExitStack() as stack:
        lines, records, ledger = open_files(
            stack, read_rows(str(input)) if is_parquet(input) else input, written, overwrite=overwrite
        )
        stack.callback(asking.close)
        asking.ledger = ledger
        identity = identity_of(generator)
        settings = {
            "work": "batch",
            "model": identity,
            "task": task,
            "slots": dict(asking.slots),
            "source": source,
            "labels": None if labels is None else list(labels),
            "special_tokens": special_tokens,
            "options": {**asking.config.to_dict(), "seed": None},
            "seed": asking.seed,
            "format": asking.format,
            "ids": ids,
            "shard": f"{part[0]}/{part[1]}",
        }
        progress = resume(ledger, lines, records, settings, b"")
        resumed = progress.records
        if workers is not None:
            stack.callback(workers.close)
            asking.elsewhere = workers.begin(identity, arguments, asking.seed)
            window = workers.window
        run_job(
            asking,
            lines,
            records,
            ledger,
            progress,
            window,
            shard=part,
            passed=asking.pass_over,
            max_errors=max_errors,
            told=lambda progress, nbytes: told and told(progress, nbytes, lines.total_bytes),
        )
    if is_parquet(output):
        write_records(Path(written), output)
    return BatchSummary.of(progress, resumed)


def open_files(
    stack: ExitStack,
    input: str | Path | Iterable[str | Mapping[str, Any]],
    output: str | Path,
    *,
    overwrite: bool,
) -> tuple[Source, Output, Ledger]:
    """Open what a job reads and writes, until the stack is closed.

    Raises:
        InvalidInputError: a file cannot be opened.
        JobError: another process is at work on the output, or no job has written it.
    """
    lines = Source(input)
    stack.callback(lines.close)
    if isinstance(input, str | Path) and str(output) != "-":
        _check_differ(Path(input), Path(output))
    if str(output) != "-":
        check_is_file(Ledger.path_of(output), "The job's ledger will be there. Give another output.")
    records = Output(output)
    stack.callback(records.close)
    if not overwrite and not Ledger.path_of(output).exists():
        check_is_new(records)  # before a ledger is made beside what is no job's
    ledger = Ledger(output)
    stack.callback(ledger.close)
    if overwrite and not records.is_stream:
        ledger.clear()
        records.rewind(0, 0)
    return lines, records, ledger


def _check_differ(input: Path, output: Path) -> None:
    if output.exists() and input.exists() and output.samefile(input):
        raise InvalidInputError(f"{output} is the input, too. Give another output.")
    if Path(f"{output}{LEDGER_SUFFIX}") == input:
        raise InvalidInputError(f"{input} is where the job's ledger will be. Give another output.")


def window_for(generator: EdgeGenerator, rows: int) -> Window:
    """How much runs at once: so many rows, and as many positions as memory is there for."""
    most_rows = integer(at_least=1)("rows", rows)
    limit = generator._settings.max_batch_size
    if limit is not None:
        most_rows = min(most_rows, limit)
    positions = most_rows * generator.max_length
    here = AvailableMemory.read().here
    if here is not None:
        each = max(generator._engine.decoder.kv_cache.bytes_per_position, 1)
        positions = min(positions, here // _MEMORY_SHARE // each)
    return Window(most_rows, positions, most_waiting=_WAITING_LINES)


def identity_of(generator: EdgeGenerator) -> dict[str, Any]:
    """All of a model that its results depend on."""
    settings, decoder = generator._settings, generator._engine.decoder
    config = generator.config
    tokenizer, tasks = (decoder.folder / name for name in ("tokenizer.json", "tasks.json"))
    return {
        "graph": config.graph_hash,
        "weights": config.weights_hash,
        "tokenizer": _digest(tokenizer),
        "tasks": _digest(tasks),
        "max_length": settings.max_length,
        "kv_window": settings.kv_window,
        "num_sink_tokens": decoder.kv_cache.num_sink_tokens,
        "overflow": settings.overflow.mode,
        "keep_tokens": settings.overflow.keep_tokens,
    }


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
