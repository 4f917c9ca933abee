"""sabiyarn-edge batch."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sabiyarn_edge.cli import progress


def test_lines_in_records_out_and_again(run, text_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("ọmọ\n\nilé\n", encoding="utf-8")
    command = (
        "batch",
        tmp_path / "in.txt",
        tmp_path / "out.jsonl",
        "--model",
        text_model,
        "--max-new-tokens",
        "3",
    )
    ran = run(*command, "--stop", "zzz")
    assert ran.code == 0
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["id"] for record in records] == [1, 3]
    assert ran.err.startswith("[2 records, 0 with errors; ")
    assert run(*command, "--stop", "zzz").err.startswith("[2 records (2 of them before), 0 with errors; ")
    assert "options.stop_strings was" in run(*command).error
    assert run(*command, "--overwrite", "--quiet").err == ""


def test_standard_input_and_output(run_process, text_model: Path) -> None:
    ran = run_process(
        *(
            "batch",
            "-",
            "-",
            "--format",
            "jsonl",
            "--model",
            text_model,
            "--option",
            "max_new_tokens=2",
            "--ids",
        ),
        stdin=b'{"id": "a", "prompt": "b"}\nbroken\n',
    )
    first, second = map(json.loads, ran.out.splitlines())
    assert (first["id"], len(first["ids"])) == ("a", 2)
    assert (second["line"], second["error"]["type"]) == (2, "InvalidInputError")
    assert ran.code == 1
    assert "1 with errors" in ran.err


def test_shards_and_merging(run, text_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\nb\nc\n")
    parts = [tmp_path / "p1.jsonl", tmp_path / "p2.jsonl"]
    for index, part in enumerate(parts, start=1):
        ran = run(
            *("batch", tmp_path / "in.txt", part, "--model", text_model),
            *("--shard", f"{index}/2", "--max-new-tokens", "2"),
        )
        assert ran.code == 0
    ran = run("batch", "--merge", *parts, tmp_path / "all.jsonl")
    assert (ran.code, ran.err) == (0, "[3 records of 2 shards; complete]\n")
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 2, 3]
    for more in (("--max-new-tokens", "5"), ("--shard", "1/2"), ("--model", tmp_path), ("--ids",)):
        ran = run("batch", "--merge", *parts, tmp_path / "two.jsonl", *more)
        assert ran.code == 2
        assert f"{more[0]} does not go with --merge" in ran.error
    assert not (tmp_path / "two.jsonl").exists()
    assert "--merge needs" in run("batch", "--merge", tmp_path / "all.jsonl").error


def test_wrong_usage(run, text_model: Path, tmp_path: Path) -> None:
    assert "INPUT and OUTPUT are needed; files given: 1" in run("batch", "in.txt").error
    assert "--max-errors is -1" in run("batch", "in.txt", "out.jsonl", "--max-errors", "-1").error
    given_twice = run(
        *("batch", "in.txt", tmp_path / "o", "--model", text_model, "--to", "yor", "--slot", "to=hau"),
    )
    assert "the slot to is given twice" in given_twice.error
    assert "is not NAME=TEXT" in run("batch", "in.txt", "out.jsonl", "--slot", "to").error


def test_the_progress_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    clock = itertools.count(step=10)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    line = progress.ProgressLine()
    line.show("0 records", 0, 100)
    line.show("1 record", 25, 100)  # 20 s for a quarter: three more are left
    line.show("2 records", 5, 0)
    line.hide()
    shown = capsys.readouterr().err.split("\r\x1b[K")
    assert shown[1:] == [
        f"|{'':20}|   0 %, ? left [0 records]",
        f"|{'#####':<20}|  25 %, 1:00 left [1 record]",
        "[2 records]",
        "",
    ]
    assert progress.duration(3723) == "1:02:03"


def test_ray_that_is_not_installed_or_not_wanted(
    run, text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in [name for name in sys.modules if name.startswith("sabiyarn_edge.ray")]:
        monkeypatch.delitem(sys.modules, name)
    command = ("batch", "in.txt", tmp_path / "out.jsonl", "--model", text_model)
    error = run(*command, "--engine", "ray").error
    assert error.startswith("Ray is not installed (") and ".[ray]" in error
    assert "--ray-actors belongs to --engine ray" in run(*command, "--ray-actors", "2").error
    assert "give --ray-cpus" in run(*command, "--engine", "ray", "--threads", "2").error


def test_parquet_without_pyarrow(
    run, text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "in.txt").write_text("ọmọ\n", encoding="utf-8")
    for files in (("in.parquet", "out.jsonl"), ("in.txt", "out.parquet")):
        error = run("batch", *(tmp_path / file for file in files), "--model", text_model).error
        assert error.startswith("Parquet needs pyarrow") and ".[ray]" in error
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]  # refused before the work, not behind it
