"""BatchMapper: a model as a step of a Ray dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import InvalidInputError
from ..jobs.batch import DEFAULT_ROWS
from ..jobs.parquet import columns_of, plain_row
from ..options.checks import integer
from .worker import Worker

__all__ = ["BatchMapper"]


class BatchMapper:
    """For `ray.data.Dataset.map_batches(BatchMapper, batch_format="pyarrow", ...)`: loads a model once in each actor.

    Each row is a line of JSONL: its columns are "id" (which must be there), and "prompt" or the task's slots; other
    columns are left alone. Rows get the columns of text "answer" (the text, or the label; several as JSON; null with an
    error), "error" (a message, or null) and "record": the line that `run_batch` would write, without its line break.

    Args:
        model: a model folder that every node has under this path, or nano.
        task, slots, source, labels, special_tokens, options, ids: as `run_batch` takes them.
        rows: most rows that run at once in an actor.
        load: further arguments of `EdgeGenerator.from_pretrained`; one thread, unless num_threads says otherwise.

    Raises:
        SabiYarnError: the model cannot be loaded, or an argument is not allowed.
    """

    def __init__(
        self,
        model: str | Path = "nano",
        *,
        task: str | None = None,
        slots: Mapping[str, str] | None = None,
        source: str | None = None,
        labels: Sequence[str] | None = None,
        special_tokens: bool = False,
        options: Mapping[str, Any] | None = None,
        ids: bool = False,
        rows: int = DEFAULT_ROWS,
        **load: Any,
    ) -> None:
        arguments = {
            "task": task,
            "slots": slots,
            "source": source,
            "labels": labels,
            "special_tokens": special_tokens,
            "options": options,
            "with_ids": ids,
        }
        rows = integer(at_least=1)("rows", rows)
        self._worker = Worker({"num_threads": 1, **load, "path": model}, arguments, None, rows)
        self._worker.load()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer the rows of a batch.

        Raises:
            InvalidInputError: the batch is no Arrow table, or has no column "id".
        """
        if not isinstance(batch, pa.Table):
            raise InvalidInputError(
                f'a batch is a {type(batch).__name__}. Give map_batches batch_format="pyarrow".'
            )
        if "id" not in batch.column_names:
            raise InvalidInputError(
                f'there is no column "id" among {", ".join(batch.column_names)}. Records and seeds go by it: add one.'
            )
        records = self._worker.answer_rows([plain_row(row) for row in batch.to_pylist()])
        columns = [columns_of(record.data) for record in records]
        for name in ("answer", "error", "record"):
            batch = batch.append_column(name, pa.array([row[name] for row in columns], pa.string()))
        return batch
