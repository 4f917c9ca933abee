from __future__ import annotations

import itertools
import json
import math
import sys
from types import SimpleNamespace

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.cli import progress


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes("\ufeffGbogbo ènìyàn\r\n\nMbụ\n".encode())
    return path


def test_columns_are_the_scores_of_the_lines(run, text_model, corpus):
    ran = run("score", corpus, "--model", text_model)
    assert ran.code == 0
    scores = list(EdgeGenerator.from_pretrained(text_model).score(["Gbogbo ènìyàn", "Mbụ"]))
    assert ran.out.splitlines() == [
        f"{line}\t{len(score.token_ids)}\t{score.total:.4f}\t{score.perplexity:.4f}"
        for line, score in zip((1, 3), scores, strict=True)
    ]
    tokens = sum(len(score.token_ids) for score in scores)
    mean = sum(score.total for score in scores) / (tokens - 2)
    assert f"[2 texts; {tokens} tokens; perplexity {math.exp(-mean):.4f} over all" in ran.err


def test_a_terminal_shows_how_much_of_the_file_is_done(run, text_model, tmp_path, monkeypatch):
    path = tmp_path / "corpus.txt"
    path.write_text("word\n" * 10)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    clock = itertools.count()
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    shown = run("score", path, "--model", text_model).err.split("\r\x1b[K")
    assert len(shown) == 2 * 10 + 1  # a line after each text, cleared before the next, and the last one
    assert shown[1].startswith("|##                  |  10 %, ? left [1 texts; ")
    assert shown[-2].startswith("|####################| 100 %, 0:00 left [10 texts; ")
    assert shown[-1].startswith("[10 texts; ")


def test_only_what_continues_the_source_is_scored(run, text_model, tmp_path):
    (tmp_path / "texts.txt").write_text(" ilé\n\nb\n", encoding="utf-8")
    (tmp_path / "sources.txt").write_text("Gbogbo ènìyàn\nunused\na\n", encoding="utf-8")
    ran = run(
        "score", tmp_path / "texts.txt", "--given", tmp_path / "sources.txt", "--model", text_model, "--json"
    )
    generator = EdgeGenerator.from_pretrained(text_model)
    records = list(map(json.loads, ran.out.splitlines()))
    for record, (line, source, text) in zip(
        records, [(1, "Gbogbo ènìyàn", " ilé"), (3, "a", "b")], strict=True
    ):
        before = generator.tokenizer.encode(source)
        ids = generator.tokenizer.encode(text, add_special_tokens=False)
        [whole] = generator.score([[*before, *ids]])
        assert (record["line"], record["token_ids"]) == (line, ids)
        assert record["log_probs"] == whole.log_probs[len(before) - 1 :].tolist()
    (tmp_path / "sources.txt").write_text("one\n")
    ran = run("score", tmp_path / "texts.txt", "--given", tmp_path / "sources.txt", "--model", text_model)
    assert (ran.code, len(ran.out.splitlines())) == (2, 1)
    assert "FILE has a line 2, but" in ran.err
    (tmp_path / "sources.txt").write_text("one\ntwo\nthree\nfour\n")
    ran = run("score", tmp_path / "texts.txt", "--given", tmp_path / "sources.txt", "--model", text_model)
    assert "sources.txt has a line 4, but FILE has not" in ran.err


def test_a_line_that_continues_an_empty_one_is_named(run, text_model, tmp_path):
    texts, sources = tmp_path / "texts.txt", tmp_path / "sources.txt"
    texts.write_text("a\n\nc\n")
    sources.write_text("a\n\n\n")
    ran = run("score", texts, "--given", sources, "--model", text_model)
    assert ran.code == 2
    assert f"line 3 of {sources} is empty, but line 3 of {texts} continues it" in ran.err


def test_json_holds_every_token(run, text_model, corpus):
    ran = run("score", corpus, "--model", text_model, "--json", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    first, second = map(json.loads, ran.out.splitlines())
    assert (first["line"], second["line"]) == (1, 3)
    assert len(first["log_probs"]) == len(first["token_ids"]) - 1
    assert first["total"] == pytest.approx(sum(first["log_probs"]), rel=1e-6)


def test_standard_input_and_a_text_of_one_token(run_process, text_model):
    ran = run_process("score", "-", "--model", text_model, "--json", "--quiet", stdin=b"x\n")
    assert ran.code == 0
    assert json.loads(ran.out)["perplexity"] is None


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_no_texts(run, text_model, tmp_path, content):
    path = tmp_path / "corpus.txt"
    path.write_text(content)
    ran = run("score", path, "--model", text_model)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "[no texts: there is no line, or all are empty]\n"


def test_a_text_of_one_token_has_no_perplexity(run, text_model, tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("x\n")
    assert run("score", path, "--model", text_model).err.startswith("[1 texts; 1 tokens; no token scored; ")


def test_what_cannot_be_scored_is_explained(run, text_model, tmp_path):
    path = tmp_path / "corpus.txt"
    assert "cannot read" in run("score", path, "--model", text_model).error
    path.write_bytes(b"fine\n\xff\xfe\n")
    ran = run("score", path, "--model", text_model, "--quiet")
    assert ran.code == 2
    assert f"line 2 of {path} is not UTF-8: byte 0 is 0xff" in ran.err
    path.write_text("word " * 200)
    assert (
        "positions. Shorten it, or give overflow"
        in run("score", path, "--model", text_model, "--quiet").error
    )
    assert run("score", path, "--model", text_model, "--overflow", "slide", "--quiet").code == 0


def test_a_line_without_end_is_refused(run, text_model):
    ran = run("score", "/dev/zero", "--model", text_model, "--quiet")
    assert ran.code == 2
    assert "line 1 of /dev/zero is longer than 64 MiB" in ran.err
