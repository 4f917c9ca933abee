"""Interrupted jobs: every record once, and the bytes of an uninterrupted run."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError, JobError
from sabiyarn_edge.jobs import job, merge_shards, run_batch
from sabiyarn_edge.jobs.ledger import Progress
from sabiyarn_edge.jobs.vectors import embed_file
from tests.jobs.conftest import records_of

LINES = [{"id": f"line {i}", "prompt": "ọmọ"[: 1 + i % 3] * (1 + i % 5)} for i in range(40)]
OPTIONS: dict[str, Any] = {"max_new_tokens": 4, "do_sample": True, "seed": 9}


class Stop(Exception):
    """Ends a job from outside."""


def stop_after(records: int) -> Any:
    def told(progress: Progress, done: int, total: int) -> None:
        if progress.records == records:
            raise Stop

    return told


@pytest.fixture
def expected(generator: EdgeGenerator, tmp_path: Path) -> bytes:
    run_batch(generator, LINES, tmp_path / "expected.jsonl", options=OPTIONS)
    return (tmp_path / "expected.jsonl").read_bytes()


@pytest.mark.parametrize("output", ["out.jsonl", "out.jsonl.gz"])
def test_goes_on_after_an_interruption(
    generator: EdgeGenerator, tmp_path: Path, expected: bytes, output: str
) -> None:
    for records in (1, 17, 39):
        with pytest.raises(Stop):
            run_batch(generator, LINES, tmp_path / output, options=OPTIONS, told=stop_after(records))
    summary = run_batch(generator, LINES, tmp_path / output, options=OPTIONS)
    assert (summary.records, summary.resumed_records) == (40, 39)
    stored = (tmp_path / output).read_bytes()
    assert (gzip.decompress(stored) if output.endswith(".gz") else stored) == expected
    assert run_batch(generator, LINES, tmp_path / output, options=OPTIONS).resumed_records == 40
    assert (tmp_path / output).read_bytes() == stored


def test_what_stands_behind_the_checkpoint_is_computed_again(
    generator: EdgeGenerator, tmp_path: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.jsonl"
    monkeypatch.setattr(job, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Stop):
        run_batch(generator, LINES, output, options=OPTIONS, told=stop_after(20))
    with output.open("ab") as file:
        file.write(b'{"id": "line 21", "te\0\0\0\0')  # as a power cut may leave it
    run_batch(generator, LINES, output, options=OPTIONS)
    assert output.read_bytes() == expected


def test_without_a_seed_the_ids_alone_decide(generator: EdgeGenerator, tmp_path: Path) -> None:
    options = {"max_new_tokens": 4, "do_sample": True}
    for name in ("one", "other"):
        run_batch(generator, LINES, tmp_path / f"{name}.jsonl", options=options)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "other.jsonl").read_bytes()
    records = records_of(tmp_path / "one.jsonl")
    assert len({record["seed"] for record in records}) == len(LINES)
    for record, line in zip(records, LINES, strict=True):
        assert (
            record["text"] == generator.generate(line["prompt"], **{**options, "seed": record["seed"]}).text
        )


def test_duplicates_are_known_after_an_interruption(generator: EdgeGenerator, tmp_path: Path) -> None:
    lines = [*LINES[:5], LINES[1], *LINES[5:8]]
    with pytest.raises(Stop):
        run_batch(generator, lines, tmp_path / "out.jsonl", options=OPTIONS, told=stop_after(3))
    assert run_batch(generator, lines, tmp_path / "out.jsonl", options=OPTIONS).errors == 1
    assert "is line 2's already" in records_of(tmp_path / "out.jsonl")[5]["error"]["message"]


def test_an_input_that_grew_is_continued(generator: EdgeGenerator, tmp_path: Path, expected: bytes) -> None:
    run_batch(generator, LINES[:30], tmp_path / "out.jsonl", options=OPTIONS)
    run_batch(generator, LINES, tmp_path / "out.jsonl", options=OPTIONS)
    assert (tmp_path / "out.jsonl").read_bytes() == expected


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_a_last_line_without_a_line_break_is_not_continued(
    generator: EdgeGenerator, tmp_path: Path, packed: bool
) -> None:
    path = tmp_path / ("in.txt.gz" if packed else "in.txt")

    def answered(text: str, output: str = "out.jsonl", **arguments: Any) -> list[dict[str, Any]]:
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        run_batch(generator, path, tmp_path / output, options={"max_new_tokens": 3}, **arguments)
        return records_of(tmp_path / output)

    answered("a b\nc")
    for longer in ("a b\nc d", "a b\nc d\ne\n", "a b\nc \n"):
        with pytest.raises(JobError, match=r"line 2 of .*in\.txt.* now it is longer"):
            answered(longer)
    assert len(records_of(tmp_path / "out.jsonl")) == 2
    assert len(answered("a b\nc\n")) == 2
    assert answered("a b\nc\nd\n") == answered("a b\nc\nd\n", "whole.jsonl")
    answered("a b\nc", "shard.jsonl", shard="1/2")
    with pytest.raises(JobError, match="now it is longer"):  # the line is another shard's
        answered("a b\nc d", "shard.jsonl", shard="1/2")
    assert [record["id"] for record in answered("a b\nc\r\nd\n", "shard.jsonl", shard="1/2")] == [1, 3]
    answered("a b\nc", overwrite=True)
    embed_file(generator, path, tmp_path / "v.npy")
    path.write_bytes(gzip.compress(b"a b\nc d") if packed else b"a b\nc d")
    with pytest.raises(JobError, match="now it is longer"):
        embed_file(generator, path, tmp_path / "v.npy")


def test_another_job_is_refused_with_the_difference(
    generator: EdgeGenerator, tasked: EdgeGenerator, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    run_batch(generator, LINES, output, options=OPTIONS)
    before = output.read_bytes()

    def refused(
        *, by: EdgeGenerator = generator, lines: Any = LINES, options: Any = OPTIONS, **more: Any
    ) -> str:
        with pytest.raises(JobError) as caught:
            run_batch(by, lines, output, options=options, **more)
        assert output.read_bytes() == before
        return str(caught.value)

    assert "options.max_new_tokens was 4 and is 5" in refused(options={**OPTIONS, "max_new_tokens": 5})
    assert "seed was 9 and is 8" in refused(options={**OPTIONS, "seed": 8})
    assert "model.weights was" in refused(by=tasked)
    assert 'shard was "1/1" and is "2/3"' in refused(shard="2/3")
    assert "ids was false and is true" in refused(ids=True)
    changed = [*LINES[:7], {"id": "line 7", "prompt": "other"}, *LINES[8:]]
    assert "its first 40 lines differ" in refused(lines=changed)
    assert "its first 40 lines differ" in refused(lines=LINES[:30])
    run_batch(generator, LINES[:3], output, options=OPTIONS, overwrite=True)
    assert len(records_of(output)) == 3
    output.write_bytes(output.read_bytes()[:10])
    before = output.read_bytes()
    assert "out.jsonl has 10 bytes" in refused(lines=LINES[:3])


def test_what_no_job_has_written_is_left_alone(generator: EdgeGenerator, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("precious")
    with pytest.raises(JobError, match="no job has written it"):
        run_batch(generator, LINES, output)
    assert output.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    (tmp_path / "new.jsonl.job").write_text("precious" * 100)
    with pytest.raises(JobError, match="not a job's ledger"):
        run_batch(generator, LINES, tmp_path / "new.jsonl")


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.job"])
@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_what_is_no_file_is_refused_and_left_alone(
    generator: EdgeGenerator, tmp_path: Path, name: str, kind: str
) -> None:
    if kind == "device":
        try:
            os.mknod(tmp_path / name, 0o600 | stat.S_IFCHR, os.makedev(1, 7))  # as /dev/full
        except (AttributeError, PermissionError):
            pytest.skip("making a device needs Linux and root")
    elif kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).mkdir()
    before = (tmp_path / name).lstat()
    for work in (run_batch, embed_file):
        with pytest.raises(InvalidInputError, match=rf"cannot write .*{name}: it is a {kind}.* Give a"):
            work(generator, LINES, tmp_path / "out.jsonl", overwrite=True)  # type: ignore[operator]
    with pytest.raises(InvalidInputError, match=rf"it is a {kind}"):
        merge_shards([tmp_path / "part.jsonl"], tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).lstat() == before


def test_a_pipe_is_not_replaced_by_parquet(generator: EdgeGenerator, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    os.mkfifo(tmp_path / "out.parquet")
    with pytest.raises(InvalidInputError, match="it is a pipe"):
        run_batch(generator, LINES, tmp_path / "out.parquet", options=OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_a_link_that_leads_nowhere_is_written_through(
    generator: EdgeGenerator, tmp_path: Path, expected: bytes
) -> None:
    (tmp_path / "link").symlink_to("target")
    for _ in range(2):
        run_batch(generator, LINES, tmp_path / "link", options=OPTIONS)
        assert (tmp_path / "target").read_bytes() == expected
    (tmp_path / "lost").symlink_to("no/folder")
    with pytest.raises(
        InvalidInputError, match=r"No such file or directory\. .*lost is a link to no/folder\."
    ):
        run_batch(generator, LINES, tmp_path / "lost", options=OPTIONS)
    assert not (tmp_path / "lost.job").exists()
    with pytest.raises(JobError, match="lost is there already"):
        merge_shards([tmp_path / "link"], tmp_path / "lost")


def test_one_process_at_a_time(generator: EdgeGenerator, tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "out.jsonl.job")
    try:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(JobError, match="another process is at work on"):
            run_batch(generator, LINES, tmp_path / "out.jsonl")
    finally:
        holder.close()


@contextmanager
def no_file_larger_than(nbytes: int) -> Iterator[None]:
    """What a full disk does: writes beyond it fail with OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_stops_cleanly(
    generator: EdgeGenerator, tmp_path: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.jsonl"
    monkeypatch.setattr(job, "CHECKPOINT_BYTES", 500)
    lines = [*LINES, *({"id": f"more {i}", "prompt": "ọmọ"} for i in range(260))]
    # The ledger of so few lines stays smaller.
    message = r"cannot write .*out\.jsonl: File too large\. \d+ records are safe in it\. Make room"
    with no_file_larger_than(2**15), pytest.raises(JobError, match=message):
        run_batch(generator, lines, output, options=OPTIONS)
    safe = records_of(output)
    assert 40 < len(safe) < 300
    summary = run_batch(generator, lines, output, options=OPTIONS)
    assert (summary.records, summary.resumed_records) == (300, len(safe))
    assert output.read_bytes().startswith(expected)
    assert [record["id"] for record in records_of(output)] == [line["id"] for line in lines]
