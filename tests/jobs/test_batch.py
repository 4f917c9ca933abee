"""run_batch: what a line asks for is what its record says, as generate() gives it for the line alone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError, JobError
from sabiyarn_edge.jobs import merge_shards, run_batch
from sabiyarn_edge.jobs.vectors import embed_file
from tests.jobs.conftest import records_of

TEXTS = ["Gbogbo ènìyàn", "ọmọ", "", "a b c d e f g h i j k l m n o p", "   ", "Mbụ"]
ASKED = [(1, TEXTS[0]), (2, TEXTS[1]), (4, TEXTS[3]), (6, TEXTS[5])]


def test_a_record_for_each_line_in_order(generator: EdgeGenerator, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(TEXTS).encode())
    summary = run_batch(
        generator, tmp_path / "in.txt", tmp_path / "out.jsonl", options={"max_new_tokens": 6}, ids=True
    )
    records = records_of(tmp_path / "out.jsonl")
    assert [record["id"] for record in records] == [number for number, _ in ASKED]
    for record, (_, text) in zip(records, ASKED, strict=True):
        alone = generator.generate(text, max_new_tokens=6)
        assert (record["text"], record["ids"]) == (alone.text, alone.generated[0])
        assert record["finish_reason"] == alone.finish_reasons[0]
        assert record["tokens"] == {"prompt": alone.prompt_lengths[0], "generated": len(alone.generated[0])}
    assert (summary.records, summary.errors, summary.resumed_records) == (4, 0, 0)
    assert summary.generated_tokens == sum(record["tokens"]["generated"] for record in records)


def test_options_of_lines_and_seeds_of_ids(generator: EdgeGenerator, tmp_path: Path) -> None:
    lines = [
        {"id": "x", "prompt": "ọmọ"},
        {"id": "y", "prompt": "ọmọ", "options": {"max_new_tokens": 3, "seed": 11}},
        {"id": "z", "prompt": [5, 7, 9], "options": {"num_beams": 3, "do_sample": False}},
        {"id": "w", "prompt": "ọmọ", "options": {"num_return_sequences": 2}},
    ]
    options = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.5, "seed": 3}
    run_batch(generator, lines, tmp_path / "out.jsonl", options=options)
    one, other, beams, two = records_of(tmp_path / "out.jsonl")
    assert one["text"] == generator.generate("ọmọ", **{**options, "seed": one["seed"]}).text
    assert other["seed"] == 11
    assert other["text"] == generator.generate("ọmọ", **{**options, "max_new_tokens": 3, "seed": 11}).text
    expected = generator.generate([5, 7, 9], max_new_tokens=6, num_beams=3)
    assert (beams["text"], beams["score"]) == (expected.text, float(expected.sequences_scores[0]))
    drawn = generator.generate("ọmọ", **{**options, "seed": two["seed"][0], "num_return_sequences": 2})
    assert two["texts"] == drawn.texts
    # A line's draws depend on its id, not on its place.
    run_batch(generator, [lines[3], lines[0]], tmp_path / "turned.jsonl", options=options)
    assert records_of(tmp_path / "turned.jsonl") == [two, one]


def test_what_cannot_be_answered_becomes_an_error_and_the_job_goes_on(
    generator: EdgeGenerator, tmp_path: Path
) -> None:
    too_long = "word " * 200
    tokens = len(generator.tokenizer.encode(too_long))
    lines = [
        (b'{"id": "good", "prompt": "a"}', "good", None),
        (b"{", 2, "line 2 is not JSON"),
        (b'{"id": "n"}', "n", 'no "prompt"'),
        (
            json.dumps({"id": "long", "prompt": too_long}).encode(),
            "long",
            f"{tokens} tokens; with at most 96",
        ),
        (b'{"id": "good", "prompt": "b"}', 5, "is line 1's already"),
        (b'{"id": "bytes", "prompt": "\xff"}', 6, "line 6 is not UTF-8: byte 27 is 0xff"),
        (b'{"id": [1], "prompt": "a"}', 7, "must be a string or an integer"),
        (b'{"id": "o", "prompt": "a", "options": {"num_beans": 2}}', "o", "did you mean num_beams"),
        (b'{"id": "p", "prompt": "a", "num_beams": 2}', "p", 'put it into "options"'),
        (b'{"id": "q", "prompt": "a", "options": 5}', "q", "must be an object"),
        (b'{"id": "r", "prompt": ["a", "b"]}', "r", "a string, or a list of token ids"),
        (b'{"id": "s", "prompt": "\\ud800"}', "s", "surrogate"),
        (b"[3]", 13, "line 13 is a list. Each line must be one object or string"),
        (b'"last"', 14, None),
        (b"[", 15, "Each line must be one object or string, without an array around them"),
        (b"null", 16, "line 16 is null"),
        (b'{"id": "t", "prompt": "a", "options": null}', "t", "options is null; it must be an object"),
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(line for line, _, _ in lines) + b"\n")
    summary = run_batch(
        generator, tmp_path / "in.jsonl", tmp_path / "out.jsonl", options={"max_new_tokens": 2}
    )
    records = records_of(tmp_path / "out.jsonl")
    for record, (_, name, message) in zip(records, lines, strict=True):
        assert record.get("id", record.get("line")) == name
        if message is None:
            assert "text" in record
        else:
            assert record["error"]["type"] == "InvalidInputError"
            assert message in record["error"]["message"]
    assert summary.errors == 15


def test_rows_of_other_libraries(generator: EdgeGenerator, tmp_path: Path) -> None:
    rows = [
        {
            "id": np.int64(7),
            "prompt": np.arange(5, 8, dtype=np.int32).tolist(),
            "options": {"top_k": np.int8(3)},
        }
    ]
    run_batch(generator, rows, tmp_path / "out.jsonl", options={"max_new_tokens": 2, "do_sample": True})
    assert records_of(tmp_path / "out.jsonl")[0]["id"] == 7
    with pytest.raises(InvalidInputError, match="cannot be written as JSON: a complex is no value of JSON"):
        run_batch(generator, [{"prompt": 1j}], tmp_path / "other.jsonl")
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_pylist([{"prompt": None, "lst": [1]}])
    parquet.write_table(table, tmp_path / "in.parquet")
    run_batch(generator, tmp_path / "in.parquet", tmp_path / "null.jsonl")
    assert (
        'no "prompt", or it is null, beside lst' in records_of(tmp_path / "null.jsonl")[0]["error"]["message"]
    )


def test_too_many_errors_end_the_job_which_can_go_on(generator: EdgeGenerator, tmp_path: Path) -> None:
    lines = ["a", {"id": "x"}, {"id": "y"}, "b"]
    with pytest.raises(JobError, match="2 lines gave errors, but at most 1 may; the last of them is line 3"):
        run_batch(generator, lines, tmp_path / "out.jsonl", options={"max_new_tokens": 2}, max_errors=1)
    assert len(records_of(tmp_path / "out.jsonl")) == 3
    summary = run_batch(generator, lines, tmp_path / "out.jsonl", options={"max_new_tokens": 2}, max_errors=2)
    assert (summary.records, summary.resumed_records) == (4, 3)


def test_endings_may_be_in_capitals(generator: EdgeGenerator, tmp_path: Path) -> None:
    line = b'{"id": "x", "prompt": "a"}\n'
    options = {"max_new_tokens": 2}
    (tmp_path / "I.JSONL").write_bytes(line)
    (tmp_path / "I.Jsonl.GZ").write_bytes(gzip.compress(line))
    for name in ("I.JSONL", "I.Jsonl.GZ"):
        run_batch(generator, tmp_path / name, tmp_path / f"OUT-{name}", options=options)
    plain = (tmp_path / "OUT-I.JSONL").read_bytes()
    assert json.loads(plain)["id"] == "x"
    assert gzip.decompress((tmp_path / "OUT-I.Jsonl.GZ").read_bytes()) == plain
    run_batch(generator, tmp_path / "I.JSONL", tmp_path / "PART.JSONL.GZ", options=options, shard="1/1")
    merge_shards([tmp_path / "PART.JSONL.GZ"], tmp_path / "ALL.GZ")
    assert gzip.decompress((tmp_path / "ALL.GZ").read_bytes()) == plain
    embed_file(generator, ["a"], tmp_path / "V.NPY")
    assert np.load(tmp_path / "V.NPY").shape[0] == 1


def test_what_is_no_list_of_lines_is_refused(generator: EdgeGenerator, tmp_path: Path) -> None:
    class Table:  # iterates over its columns' names, as a pandas.DataFrame
        columns = ("prompt",)

        def __iter__(self) -> Iterator[str]:
            return iter(self.columns)

    refused: list[tuple[Any, str]] = [
        (Table(), r'the input is a Table, .*to_dict\("records"\)'),
        ({"prompt": ["a"]}, "the input is a dict, which gives the names of its columns"),
        (None, "the input is None; it must be a path, or strings and mappings"),
        ("a\0b", "input is .* but must be a path"),
    ]
    for given, message in refused:
        for job in (run_batch, embed_file):
            with pytest.raises(InvalidInputError, match=message):
                job(generator, given, tmp_path / "out.jsonl")
    for job in (run_batch, embed_file):
        with pytest.raises(InvalidInputError, match="output is 3, but must be a path"):
            job(generator, ["a"], 3)  # type: ignore[operator]
    assert not any(tmp_path.iterdir())


def test_compressed_files(generator: EdgeGenerator, tmp_path: Path) -> None:
    (tmp_path / "in.txt.gz").write_bytes(gzip.compress("\n".join(TEXTS).encode()))
    (tmp_path / "in.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    for ending in ("", ".gz"):
        run_batch(
            generator,
            tmp_path / f"in.txt{ending}",
            tmp_path / f"out.jsonl{ending}",
            options={"max_new_tokens": 3},
        )
    packed = gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes())
    assert packed == (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "bad.txt.gz").write_bytes((tmp_path / "in.txt.gz").read_bytes()[:-9])
    with pytest.raises(InvalidInputError, match=r"cannot read .*bad.txt.gz: .* Copy the file again"):
        run_batch(generator, tmp_path / "bad.txt.gz", tmp_path / "bad.jsonl", options={"max_new_tokens": 3})


def test_files_that_cannot_be_opened(generator: EdgeGenerator, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read .*missing.txt: No such file"):
        run_batch(generator, tmp_path / "missing.txt", tmp_path / "out.jsonl")
    with pytest.raises(InvalidInputError, match=r"cannot write .*nowhere"):
        run_batch(generator, ["a"], tmp_path / "nowhere" / "out.jsonl")
    (tmp_path / "same.jsonl").write_text('"a"\n')
    with pytest.raises(InvalidInputError, match="is the input, too"):
        run_batch(generator, tmp_path / "same.jsonl", tmp_path / "same.jsonl", overwrite=True)
    assert (tmp_path / "same.jsonl").read_text() == '"a"\n'
    with pytest.raises(InvalidInputError, match="the input holds a int"):
        run_batch(generator, [5], tmp_path / "out.jsonl")  # type: ignore[list-item]
    with pytest.raises(InvalidInputError, match="belongs to a task"):
        run_batch(generator, ["a"], tmp_path / "out.jsonl", slots={"to": "yor"})
