"""merge_shards: joins the outputs of a job's shards, and proves that nothing is missing."""

from __future__ import annotations

import gzip
import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import InvalidInputError, JobError
from ..system.atomic_write import atomic_file
from .endings import is_packed
from .ledger import Ledger, Progress, differences
from .output import check_is_file
from .parquet import check_pyarrow, is_parquet, records_of, write_records
from .shard import read_shard

__all__ = ["merge_shards"]


@dataclass
class _Part:
    """The output of one shard."""

    path: Path
    index: int
    count: int
    settings: dict[str, Any]
    """Without the shard."""
    progress: Progress


def merge_shards(parts: Sequence[str | Path], output: str | Path) -> int:
    """Join the outputs of all shards of a job into one, as a single machine would have written it.

    Each shard's ledger must stand beside it; of a Parquet output, the lines that it was made of (OUTPUT.jsonl) and
    their ledger. The output appears when it is complete.

    Args:
        parts: outputs of the shards, in any order.
        output: a new file; an ending .gz: compressed; .parquet: made at the end of OUTPUT.jsonl.

    Returns:
        The number of records.

    Raises:
        InvalidInputError: a file cannot be read, or the output can be no file.
        JobError: the parts are not all shards of one job, one is not complete, or was changed; or the output is there.
    """
    check_pyarrow(output)
    target = records_of(output)
    if str(output) == "-":
        raise InvalidInputError("merging writes a file, not standard output. Give its name.")
    for path in (Path(output), target):
        check_is_file(path, "Give a file.")
        if os.path.lexists(path):
            raise JobError(f"{path} is there already. Give another name, or delete it.")
    found = sorted((_open(records_of(part)) for part in parts), key=lambda part: part.index)
    _check(found)
    total = sum(part.progress.records for part in found)
    try:
        with atomic_file(target) as file, ExitStack() as stack:
            sink: BinaryIO = file
            if is_packed(target):
                sink = cast("BinaryIO", stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0)))
            # Every shard took every n-th line: one record of each in turn is the input's order.
            turns = itertools.zip_longest(*(_records(part) for part in found))
            for record in itertools.chain.from_iterable(turns):
                if record is not None:
                    sink.write(record)
    except OSError as error:
        raise JobError(f"cannot write {target}: {error.strerror or error}.") from error
    if is_parquet(output):
        write_records(target, output)
    return total


def _open(path: Path) -> _Part:
    if not path.is_file():
        raise InvalidInputError(f"cannot read {path}: there is no such file.")
    if not Ledger.path_of(path).is_file():
        raise JobError(f"{path} has no ledger beside it: {Ledger.path_of(path)}. Copy it, too.")
    ledger = Ledger(path)
    try:
        settings = ledger.settings()
        if settings is None or settings.get("work") != "batch":
            raise JobError(f"{path} is not the output of a batch job.")
        index, count = read_shard(settings.pop("shard"))
        return _Part(path, index, count, settings, ledger.progress())
    finally:
        ledger.close()


def _check(parts: Sequence[_Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        found = differences(first.settings, part.settings)
        if part.count != first.count:
            found.append(f"it is one of {part.count} parts, the other one of {first.count}")
        if found:
            raise JobError(f"{part.path} and {first.path} are not of one job: {'; '.join(found)}.")
    present = [part.index for part in parts]
    missing = sorted(set(range(1, first.count + 1)) - set(present))
    if missing:
        raise JobError(
            f"of {first.count} shards {', '.join(f'{index}/{first.count}' for index in missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Give all."
        )
    for before, part in itertools.pairwise(parts):
        if before.index == part.index:
            raise JobError(
                f"{before.path} and {part.path} are both shard {part.index}/{part.count}. Give one."
            )
    for part in parts:
        if not part.progress.complete:
            raise JobError(f"{part.path} is not complete. Run its command again, to the end.")
        if (part.progress.lines, part.progress.input_digest) != (
            first.progress.lines,
            first.progress.input_digest,
        ):
            raise JobError(f"{part.path} and {first.path} were made of different inputs.")
        expected = (first.progress.texts - part.index + first.count) // first.count
        if part.progress.records != expected:
            raise JobError(
                f"{part.path} has {part.progress.records} records of {expected}. Run its job anew."
            )


def _records(part: _Part) -> Iterator[bytes]:
    """The lines of an output, which must be those that were written."""
    count = crc = 0
    file = part.path.open("rb")
    try:
        with gzip.GzipFile(fileobj=file) if is_packed(part.path) else file as records:
            for record in records:
                count, crc = count + 1, zlib.crc32(record, crc)
                yield record
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise JobError(f"{part.path} is damaged: {error}. Copy it again.") from error
    finally:
        file.close()
    if (count, crc) != (part.progress.records, part.progress.output_crc):
        raise JobError(f"{part.path} is not what its job has written: it was changed, or cut. Copy it again.")
