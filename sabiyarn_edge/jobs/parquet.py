"""Parquet in and out of a job (pyarrow, of the extra [ray]). The job itself reads and writes lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, JobError
from ..system.atomic_write import atomic_file
from ..system.installation import install_command
from .endings import has_ending

__all__ = [
    "check_pyarrow",
    "columns_of",
    "is_parquet",
    "plain_row",
    "read_rows",
    "records_of",
    "write_records",
]

_ROWS_AT_ONCE = 1024
_JSON_VALUES = (str, int, float, bool, list, dict)


def is_parquet(name: object) -> bool:
    """Whether a file is Parquet, by its ending."""
    return has_ending(name, ".parquet")


def records_of(output: str | Path) -> Path:
    """The file of a job's records, one per line: its output, or what a Parquet output is made of in the end."""
    return Path(f"{output}.jsonl" if is_parquet(output) else output)


def check_pyarrow(*files: object) -> None:
    """Refuse Parquet before the work is done rather than behind it.

    Raises:
        JobError: one of the files is Parquet, and pyarrow is not installed.
    """
    if any(map(is_parquet, files)):
        _arrow()


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a line of JSON has it: without nulls, and without columns that JSON has no type for."""
    values = {name: value for name, value in row.items() if isinstance(value, _JSON_VALUES)}
    return {
        name: {key: item for key, item in value.items() if item is not None}
        if isinstance(value, dict)
        else value
        for name, value in values.items()
    }


def read_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a file, some at a time.

    Raises:
        InvalidInputError: it cannot be read.
        JobError: pyarrow is not installed.
    """
    pa = _arrow()
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                yield from map(plain_row, batch.to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"cannot read {path}: {' '.join(str(error).split())}.") from error


def write_records(records: Path, target: str | Path) -> None:
    """Write a job's records as Parquet; the file is there when it is complete.

    Its columns are texts: "id" (null where it could not be read), "answer" (null with an error), "error" (null without
    one) and "record", the line itself.

    Raises:
        JobError: there is no room, or pyarrow is not installed.
    """
    pa = _arrow()
    import pyarrow.parquet as parquet

    schema = pa.schema([(name, pa.string()) for name in ("id", "answer", "error", "record")])
    try:
        with (
            records.open("rb") as lines,
            atomic_file(Path(target)) as file,
            parquet.ParquetWriter(file, schema) as writer,
        ):
            rows = []
            for line in lines:
                rows.append(columns_of(line))
                if len(rows) == _ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    rows.clear()
            writer.write_table(pa.Table.from_pylist(rows, schema))
    except OSError as error:
        raise JobError(
            f"cannot write {target}: {error.strerror or error}. Its records are in {records}."
        ) from error


def columns_of(line: bytes) -> dict[str, str | None]:
    """A record in columns."""
    record = json.loads(line)
    name = record.get("custom_id", record.get("id"))
    answer = next(
        (record[key] for key in ("text", "label", "texts", "entities", "response") if key in record), None
    )
    error = record.get("error")
    return {
        "id": None if name is None else str(name),
        "answer": answer if isinstance(answer, str | None) else json.dumps(answer, ensure_ascii=False),
        "error": None if error is None else str(error["message"]),
        "record": line.decode().rstrip("\n"),
    }


def _arrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise JobError(f"Parquet needs pyarrow, which is missing: {install_command('ray')}") from error
    return pyarrow
