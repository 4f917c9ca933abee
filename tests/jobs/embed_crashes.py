"""Kills `embed_file` at each line that brings something to the disk, and runs it again to its end.

    python -m tests.jobs.embed_crashes MODEL FOLDER

Every file must then be the file of a run that nobody killed. The vectors are made without the model, which would take
most of the time and writes nothing. Prints the number of lines that were tried.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.jobs import job, ledger, output, vectors
from sabiyarn_edge.jobs.job import Planned, Record
from sabiyarn_edge.jobs.source import Line
from tests.crash_points import killed_at

TEXTS = 3
FILES = {job.__file__, ledger.__file__, output.__file__, vectors.__file__}
FUNCTIONS = {
    *("resume", "_begun", "_found", "make", "begin", "clear", "checkpoint", "rewind", "overwrite"),
    *("forget_ids_after", "count_rows", "embed_file"),
}


def plan(work: Any, line: Line) -> Planned:
    """A vector of the line's number alone."""
    data = work._records.vector(line.number, np.full(work._generator.config.gptjx.n_embd, line.number, "f4"))
    return Planned((), lambda outcomes: Record(data), lambda error: Record(b"", is_error=True))


def main(model: Path, folder: Path) -> int:
    """Try every line; returns how many there are."""
    vectors._Embedding.plan = plan  # type: ignore[method-assign]
    job.CHECKPOINT_SECONDS = 0.0
    generator = EdgeGenerator.from_pretrained(model, num_threads=1)
    texts = folder / "in.txt"
    texts.write_text("a\n" * TEXTS)
    vectors.embed_file(generator, texts, folder / "whole.npy")
    expected = (folder / "whole.npy").read_bytes()
    assert np.load(folder / "whole.npy")[:, 0].tolist() == [1, 2, 3]
    for line in itertools.count():
        target = folder / f"{line}.npy"

        def write(target: Path = target) -> None:
            vectors.embed_file(generator, texts, target)

        killed = killed_at(line, write, files=FILES, functions=FUNCTIONS)
        write()
        assert target.read_bytes() == expected, line
        if not killed:
            return line
    raise AssertionError


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))
