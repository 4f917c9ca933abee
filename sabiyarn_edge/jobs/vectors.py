"""embed_file: a vector for each line of a file, as a NumPy file that can be mapped, or as JSON."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..calls.pooling import Pooling
from ..errors import InvalidInputError, JobError, SabiYarnError, shown
from ..generator import EdgeGenerator
from ..options.checks import path
from .batch import DEFAULT_ROWS, BatchSummary, identity_of, open_files, window_for
from .endings import has_ending
from .job import Planned, Record, resume, run_job
from .ledger import Progress
from .lines import decoded
from .pipeline import EngineUnit
from .records import encoded, error_fields
from .source import MAX_LINE_BYTES, Line

__all__ = ["DTYPES", "embed_file"]

Dtype = Literal["float32", "float16"]
DTYPES: tuple[Dtype, ...] = ("float32", "float16")


def embed_file(
    generator: EdgeGenerator,
    input: str | Path | Iterable[str | Mapping[str, Any]],
    output: str | Path,
    *,
    pooling: Pooling = "mean",
    normalize: bool = False,
    dtype: Dtype = "float32",
    rows: int = DEFAULT_ROWS,
    overwrite: bool = False,
    told: Callable[[Progress, int, int], object] | None = None,
) -> BatchSummary:
    """Make each line of a file a vector. Called again after an interruption, it goes on where it was.

    Args:
        input: a path ("-": standard input; .gz: compressed).
        output: a path. With the ending .npy an array [lines, n_embd], which `numpy.load(path, mmap_mode="r")` maps:
            row i is line i + 1's, and NaN where a line is empty or has an error. Else JSON: "line" and "embedding" of
            each line that is not empty; "-" is standard output.
        pooling, normalize: as `EdgeGenerator.embed` takes them.
        dtype: of a .npy file.
        rows: most that run at once.
        overwrite: begin anew if there is an output already.
        told: as for `run_batch`.

    Returns:
        BatchSummary; its records are lines.

    Raises:
        InvalidInputError, JobError: as `run_batch`.
    """
    if dtype not in DTYPES:
        raise InvalidInputError(f"dtype is {shown(dtype)}; it must be one of {', '.join(DTYPES)}.")
    as_array = has_ending(path("output", output), ".npy")
    if dtype != "float32" and not as_array:
        raise InvalidInputError(f"dtype is {dtype}, but the output is JSON. Give one that ends with .npy.")
    generator._decide_embeddings([0], pooling, normalize)  # refuse bad arguments before anything is written
    width = generator.config.gptjx.n_embd
    work = _Embedding(
        generator, pooling, normalize, _ArrayRecords(width, dtype) if as_array else _JsonRecords()
    )
    window = window_for(generator, rows)
    settings = {
        "work": "embed",
        "model": identity_of(generator),
        "pooling": pooling,
        "normalize": normalize,
        "dtype": dtype,
    }
    with ExitStack() as stack:
        lines, vectors, ledger = open_files(stack, input, output, overwrite=overwrite)
        head = _head(0, width, dtype) if as_array else b""
        progress = resume(ledger, lines, vectors, settings, head)
        resumed = progress.records

        def count_rows(progress: Progress) -> None:
            if not as_array:
                return
            expected = len(head) + progress.records * width * np.dtype(dtype).itemsize
            if vectors.size != expected:
                raise JobError(
                    f"{vectors.name} has {vectors.size} bytes, but {progress.records} rows take {expected}. Begin anew "
                    "with --overwrite."
                )
            vectors.overwrite(_head(progress.records, width, dtype))

        count_rows(progress)  # a killed run may have counted rows that its ledger does not know
        run_job(
            work,
            lines,
            vectors,
            ledger,
            progress,
            window,
            told=lambda progress, nbytes: told and told(progress, nbytes, lines.total_bytes),
            before_checkpoint=count_rows,
        )
    return BatchSummary.of(progress, resumed)


def _head(rows: int, width: int, dtype: Dtype) -> bytes:
    """The head of a .npy file. NumPy leaves room in it for any number of rows, so that it can be replaced."""
    file = io.BytesIO()
    fields = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype).newbyteorder("<")),
        "fortran_order": False,
        "shape": (rows, width),
    }
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


class _ArrayRecords:
    """Rows of an array."""

    def __init__(self, width: int, dtype: Dtype) -> None:
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._nothing = np.full(width, np.nan, self._dtype).tobytes()

    def vector(self, line: int, vector: NDArray[np.float32]) -> bytes:
        return vector.astype(self._dtype).tobytes()

    def nothing(self) -> bytes | None:
        return self._nothing

    def error(self, line: int, error: SabiYarnError) -> bytes:
        return self._nothing


class _JsonRecords:
    """Lines of JSON."""

    def vector(self, line: int, vector: NDArray[np.float32]) -> bytes:
        return encoded({"line": line, "embedding": vector.tolist()})

    def nothing(self) -> bytes | None:
        return None

    def error(self, line: int, error: SabiYarnError) -> bytes:
        return encoded(error_fields(None, line, error))


class _Embedding:
    """The work of the job."""

    def __init__(
        self,
        generator: EdgeGenerator,
        pooling: Pooling,
        normalize: bool,
        records: _ArrayRecords | _JsonRecords,
    ) -> None:
        self._generator, self._pooling, self._normalize = generator, pooling, normalize
        self._records = records

    def plan(self, line: Line) -> Planned | None:
        refuse = functools.partial(self._refused, line.number)
        try:
            if line.content is None:
                raise InvalidInputError(f"line {line.number} is longer than {MAX_LINE_BYTES} bytes. Cut it.")
            if not line.content.strip():
                nothing = self._records.nothing()
                return None if nothing is None else Planned((), lambda outcomes: Record(nothing), refuse)
            text = decoded(line.content, line.number)
            prompts, [[work]] = self._generator._decide_embeddings(text, self._pooling, self._normalize)
        except InvalidInputError as error:
            record = refuse(error)
            return Planned((), lambda outcomes: record, refuse)
        tokens = len(prompts.ids[0])
        unit = EngineUnit(self._generator._engine, work, tokens, lambda: work.vector, id(self))

        def write(outcomes: list[NDArray[np.float32]]) -> Record:
            [vector] = outcomes
            if self._normalize:
                # Along an axis, as for several texts: norms of one vector add in another order.
                vector = vector / np.linalg.norm(vector[None], axis=1)
            return Record(self._records.vector(line.number, vector), prompt_tokens=tokens)

        return Planned([unit], write, refuse)

    def _refused(self, line: int, error: SabiYarnError) -> Record:
        return Record(self._records.error(line, error), is_error=True)
