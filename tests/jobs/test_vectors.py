"""embed_file: rows of an array that match the lines, also after interruptions."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError, JobError
from sabiyarn_edge.jobs import job
from sabiyarn_edge.jobs.ledger import Ledger, Progress
from sabiyarn_edge.jobs.output import Output
from sabiyarn_edge.jobs.vectors import embed_file

LINES = ["Gbogbo ènìyàn", "", "ọmọ " * 3, "word " * 200, "Mbụ", *("a b c " * (1 + i % 4) for i in range(30))]
GOOD = [i for i, line in enumerate(LINES) if line and i != 3]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "in.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return tmp_path / "in.txt"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_row_and_line_match(generator: EdgeGenerator, texts: Path, tmp_path: Path, dtype: Any) -> None:
    summary = embed_file(generator, texts, tmp_path / "v.npy", dtype=dtype, normalize=True)
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert (vectors.shape, vectors.dtype) == ((len(LINES), generator.config.gptjx.n_embd), np.dtype(dtype))
    expected = generator.embed([LINES[i] for i in GOOD], normalize=True)
    np.testing.assert_array_equal(vectors[GOOD], expected.astype(dtype))
    assert np.isnan(vectors[[1, 3]]).all()
    assert (summary.records, summary.errors) == (len(LINES), 1)


def test_json_lines_tell_what_is_wrong(generator: EdgeGenerator, texts: Path, tmp_path: Path) -> None:
    embed_file(generator, texts, tmp_path / "v.jsonl", pooling="last")
    records = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [record["line"] for record in records] == [i + 1 for i, line in enumerate(LINES) if line]
    assert "positions" in records[2]["error"]["message"]
    np.testing.assert_array_equal(
        np.array(records[0]["embedding"], np.float32), generator.embed(LINES[0], pooling="last")
    )


def test_an_interrupted_file_is_an_array_too_and_goes_on(
    generator: EdgeGenerator, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_file(generator, texts, tmp_path / "whole.npy")
    monkeypatch.setattr(job, "CHECKPOINT_SECONDS", 0.0)

    def stop(progress: Progress, done: int, total: int) -> None:
        if progress.records == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_file(generator, texts, tmp_path / "v.npy", told=stop)
    expected = np.load(tmp_path / "whole.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy", mmap_mode="r"), expected[:11])
    summary = embed_file(generator, texts, tmp_path / "v.npy")
    assert (summary.records, summary.resumed_records) == (len(LINES), 11)
    assert (tmp_path / "v.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_kill_before_the_head_is_on_the_disk(
    generator: EdgeGenerator, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_file(generator, texts, tmp_path / "whole.npy")
    begin = Ledger.begin

    def killed(ledger: Ledger, settings: Any) -> None:
        begin(ledger, settings)
        raise KeyboardInterrupt  # nothing is written on its way out

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Ledger, "begin", killed)
        embed_file(generator, texts, tmp_path / "v.npy")
    assert (tmp_path / "v.npy").stat().st_size == 0
    embed_file(generator, texts, tmp_path / "v.npy")
    assert (tmp_path / "v.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_kill_at_any_line_that_writes(text_model: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.jobs.embed_crashes", str(text_model), str(tmp_path)],
        capture_output=True,
        timeout=300,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 50


@pytest.mark.parametrize("refused", [0, 1])
def test_a_disk_that_is_full_at_the_head(
    generator: EdgeGenerator,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: int,
) -> None:
    embed_file(generator, texts, tmp_path / "whole.npy")
    calls = itertools.count()
    for place in (Output, Ledger):
        write = place.checkpoint

        def full(*arguments: Any, write: Any = write) -> None:
            if next(calls) == refused:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(*arguments)

        monkeypatch.setattr(place, "checkpoint", full)
    with pytest.raises(JobError, match=r"cannot begin .*v\.npy: No space left on device\. Make room"):
        embed_file(generator, texts, tmp_path / "v.npy")
    embed_file(generator, texts, tmp_path / "v.npy")
    assert (tmp_path / "v.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_disk_that_is_full_at_the_ledger_leaves_an_array(
    generator: EdgeGenerator, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "CHECKPOINT_SECONDS", 0.0)
    checkpoint = Ledger.checkpoint

    def full(ledger: Ledger, progress: Progress) -> None:
        if progress.records == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        checkpoint(ledger, progress)

    monkeypatch.setattr(Ledger, "checkpoint", full)
    with pytest.raises(JobError, match="4 records are safe"):
        embed_file(generator, texts, tmp_path / "v.npy")
    assert len(np.load(tmp_path / "v.npy", mmap_mode="r")) == 4


def test_an_array_whose_rows_do_not_fill_it_is_refused(
    generator: EdgeGenerator, texts: Path, tmp_path: Path
) -> None:
    embed_file(generator, texts, tmp_path / "v.npy")
    ledger = Ledger(tmp_path / "v.npy")
    progress = ledger.progress()
    progress.output_bytes -= 128
    ledger.checkpoint(progress)
    ledger.close()
    with pytest.raises(
        JobError, match=r"v\.npy has \d+ bytes, but 35 rows take \d+\. Begin anew with --overwrite"
    ):
        embed_file(generator, texts, tmp_path / "v.npy")


def test_what_is_refused(generator: EdgeGenerator, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="dtype is float16, but the output is JSON"):
        embed_file(generator, texts, tmp_path / "v.jsonl", dtype="float16")
    with pytest.raises(InvalidInputError, match="pooling is 'max'"):
        embed_file(generator, texts, tmp_path / "v.npy", pooling="max")  # type: ignore[arg-type]
    embed_file(generator, texts, tmp_path / "v.npy")
    with pytest.raises(JobError, match="normalize was false and is true"):
        embed_file(generator, texts, tmp_path / "v.npy", normalize=True)
