"""Shards: together they are what one machine writes, and merging proves it."""

from __future__ import annotations

import gzip
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError, JobError
from sabiyarn_edge.jobs import job, merge_shards, run_batch
from sabiyarn_edge.jobs.ledger import Progress

LINES = ["\n" if i in (3, 4, 11) else f"ọmọ {i}\n" for i in range(20)]
OPTIONS: dict[str, Any] = {"max_new_tokens": 2}


@pytest.fixture
def shards(generator: EdgeGenerator, tmp_path: Path) -> list[Path]:
    (tmp_path / "in.txt").write_text("".join(LINES), encoding="utf-8")
    run_batch(generator, tmp_path / "in.txt", tmp_path / "whole.jsonl", options=OPTIONS)
    return [shard_of(generator, tmp_path, f"{index}/3") for index in (1, 2, 3)]


def shard_of(generator: EdgeGenerator, folder: Path, shard: str) -> Path:
    output = folder / f"part{shard[0]}of{shard[2]}.jsonl{'.gz' if shard[0] == '2' else ''}"
    run_batch(generator, folder / "in.txt", output, options=OPTIONS, shard=shard)
    return output


def test_merged_shards_are_what_one_machine_writes(shards: list[Path], tmp_path: Path) -> None:
    expected = (tmp_path / "whole.jsonl").read_bytes()
    assert merge_shards(shards[::-1], tmp_path / "all.jsonl") == 17
    assert (tmp_path / "all.jsonl").read_bytes() == expected
    merge_shards(shards, tmp_path / "all.jsonl.gz")
    assert gzip.decompress((tmp_path / "all.jsonl.gz").read_bytes()) == expected
    with pytest.raises(JobError, match="is there already"):
        merge_shards(shards, tmp_path / "all.jsonl")


def test_an_id_that_two_shards_have_is_found(
    generator: EdgeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ["a", "b", "a", "c", "b", "b", 4, "4", 4, None, 13, "d", "a"]  # across shards, and within one
    lines = [{"prompt": f"ọmọ {i}"} | ({} if id is None else {"id": id}) for i, id in enumerate(ids)]
    texts = [json.dumps(line) for line in lines]
    texts[3:3] = [
        "",
        "broken",
        '{"id": "c", "top_k": 1}',
    ]  # the id of a line that cannot be read is free; line 13 has no id but its number
    (tmp_path / "in.jsonl").write_text("\n".join(texts), encoding="utf-8")
    options = {"max_new_tokens": 2, "do_sample": True}
    summary = run_batch(generator, tmp_path / "in.jsonl", tmp_path / "whole.jsonl", options=options)
    assert summary.errors == 2 + 6
    monkeypatch.setattr(job, "CHECKPOINT_SECONDS", 0.0)

    def stop(progress: Progress, done: int, total: int) -> None:
        if progress.records == 2:
            raise KeyboardInterrupt

    for count in (2, 3, 5):
        parts = [tmp_path / f"part{index}of{count}.jsonl" for index in range(1, count + 1)]
        for index, part in enumerate(parts, start=1):
            for told in (stop, None):  # ids are known after an interruption, too
                with suppress(KeyboardInterrupt):
                    run_batch(
                        *(generator, tmp_path / "in.jsonl", part),
                        options=options,
                        shard=f"{index}/{count}",
                        told=told,
                    )
        merge_shards(parts, tmp_path / f"all{count}.jsonl")
        assert (tmp_path / f"all{count}.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_parquet_shards_are_joined_from_their_records(
    shards: list[Path], generator: EdgeGenerator, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    parts: list[Path] = []
    for index in (1, 2, 3):
        parts.append(tmp_path / f"part{index}.parquet")
        run_batch(generator, tmp_path / "in.txt", parts[-1], options=OPTIONS, shard=f"{index}/3")
    assert merge_shards(parts, tmp_path / "all.parquet") == 17
    records = parquet.read_table(tmp_path / "all.parquet")["record"].to_pylist()
    assert "".join(f"{record}\n" for record in records) == (tmp_path / "whole.jsonl").read_text("utf-8")
    with pytest.raises(JobError, match=r"all\.parquet is there already"):
        merge_shards(parts, tmp_path / "all.parquet")


def test_what_is_no_whole_is_refused(shards: list[Path], generator: EdgeGenerator, tmp_path: Path) -> None:
    target = tmp_path / "all.jsonl"

    def refused(parts: list[Path], message: str, error: type[Exception] = JobError) -> None:
        with pytest.raises(error, match=message):
            merge_shards(parts, target)
        assert not target.exists()

    one, two, three = shards
    refused([one, three], "of 3 shards 2/3 is missing")
    refused([one, two, three, _copy(three)], "are both shard 3/3")
    refused([one, two, tmp_path / "nothing"], "no such file", InvalidInputError)
    refused([one, two, shard_of(generator, tmp_path, "1/4")], "one of 4 parts")
    (tmp_path / "more.txt").write_text("".join(LINES) + "more\n", encoding="utf-8")
    run_batch(generator, tmp_path / "more.txt", tmp_path / "o.jsonl", options=OPTIONS, shard="3/3")
    refused([one, two, tmp_path / "o.jsonl"], "were made of different inputs")
    run_batch(
        generator, tmp_path / "in.txt", tmp_path / "p.jsonl", options={"max_new_tokens": 3}, shard="3/3"
    )
    refused([one, two, tmp_path / "p.jsonl"], "options.max_new_tokens was 2 and is 3")
    content = three.read_bytes()
    three.write_bytes(content.replace(b"prompt", b"PROMPT", 1))
    refused(shards, "is not what its job has written")
    three.write_bytes(content)
    two.write_bytes(two.read_bytes()[:-9])
    refused(shards, "is damaged")
    Path(f"{one}.job").unlink()
    refused(shards, "has no ledger beside it")


def _copy(part: Path) -> Path:
    copy = part.with_name("copy.jsonl")
    shutil.copy(part, copy)
    shutil.copy(f"{part}.job", f"{copy}.job")
    return copy


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2"])
def test_what_is_no_shard(generator: EdgeGenerator, tmp_path: Path, shard: str) -> None:
    with pytest.raises(InvalidInputError, match="it must be like 3/8"):
        run_batch(generator, ["a"], tmp_path / "out.jsonl", shard=shard)
