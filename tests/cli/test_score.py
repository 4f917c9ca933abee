from __future__ import annotations

import json
import math

import pytest

from sabiyarn_edge import EdgeGenerator


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
    assert run_process("score", "-", "--model", text_model, stdin=b"").code == 0


def test_what_cannot_be_scored_is_explained(run, text_model, tmp_path):
    path = tmp_path / "corpus.txt"
    assert "cannot read" in run("score", path, "--model", text_model).error
    path.write_bytes(b"fine\n\xff\xfe\n")
    ran = run("score", path, "--model", text_model, "--quiet")
    assert ran.code == 2
    assert "line 2 is not UTF-8: byte 0 is 0xff" in ran.err
    path.write_text("word " * 200)
    assert (
        "positions. Shorten it, or give overflow"
        in run("score", path, "--model", text_model, "--quiet").error
    )
    assert run("score", path, "--model", text_model, "--overflow", "slide", "--quiet").code == 0
