from __future__ import annotations

import json

import onnxruntime

from sabiyarn_edge.bench.engine import Engine
from tests.cli.conftest import BLOCK_SIZE, VOCAB_SIZE

SHORT = ("--steps", 3, "--rounds", 2)


def test_json_holds_every_figure(run, text_model):
    ran = run("bench", text_model, "--lengths", 4, 16, 5000, "--threads", 1, "--json", *SHORT)
    assert (ran.code, ran.err) == (0, "")
    result = json.loads(ran.out)
    assert result["machine"]["versions"]["onnxruntime"] == onnxruntime.__version__
    assert result["bandwidth"]["best"] > 0
    assert result["left_out_lengths"] == [5000]
    engine = result["engines"]["sabiyarn_edge float32"]
    assert (engine["threads"], engine["vocab_size"], engine["positions"]) == (1, VOCAB_SIZE, BLOCK_SIZE)
    assert engine["disk_bytes"] == sum(path.stat().st_size for path in text_model.iterdir())
    assert list(engine["lengths"]) == ["4", "16"]
    for figures in engine["lengths"].values():
        assert figures["decode_ms"]["count"] == 2 * 3  # rounds, steps
        assert figures["first_token_ms"]["count"] == 2
        decode = figures["decode_ms"]
        assert 0 < decode["p10"] <= decode["median"] <= decode["p90"]
        assert figures["prefill_tokens_per_second"] > 0
        assert figures["cpu_seconds_per_100_tokens"] > 0
    assert engine["beams"]["num_beams"] == 5
    assert engine["beams"]["step_ms"]["median"] > 0
    assert 0 < engine["outside_run_us"]["median"] < 1e6
    assert engine["load_seconds"]["count"] == 3
    assert list(engine["memory"]) == [
        "imported", "loaded", "after_256_tokens", "after_prompt_of_4", "after_prompt_of_16",
    ]  # fmt: skip


def test_text_names_what_it_shows(run, text_model):
    ran = run("bench", text_model, "--lengths", 16, 5000, *SHORT)
    assert ran.code == 0
    assert "sabiyarn_edge float32: " in ran.out
    assert "left out, longer than the model's 96 positions: 5000" in ran.out


def test_lengths_that_do_not_fit_are_refused(run, text_model):
    ran = run("bench", text_model, "--lengths", 1024, *SHORT)
    assert ran.code == 2
    assert ran.error == (
        "prompts of 1024 tokens, the first token of the answer and 3 timed ones do not fit the model's 96 positions. "
        "Ask for a length of at most 92."
    )


def test_steps_that_do_not_fit_are_refused(run, text_model):
    assert run("bench", text_model, "--lengths", 1, "--steps", 95).error == (
        "prompts of 1 tokens, the first token of the answer and 95 timed ones do not fit the model's 96 positions. "
        "Ask for at most 94 steps."
    )
    assert run("bench", text_model, "--lengths", 1, "--steps", 94, "--rounds", 1).code == 0


def test_memory_is_taken_after_256_tokens(run, text_model, monkeypatch):
    """Or as many as there are positions for: the lengths that are asked for make them no fewer."""
    trials = []
    trial = Engine.trial
    monkeypatch.setattr(
        Engine,
        "trial",
        lambda self, length, steps, seed: trials.append((length, steps)) or trial(self, length, steps, seed),
    )
    assert run("bench", text_model, "--lengths", 80, *SHORT).code == 0
    assert trials[0] == (16, BLOCK_SIZE - 16 - 2)


def test_numbers_below_one_are_refused(run, text_model):
    assert run("bench", text_model, "--rounds", 0).error == "--rounds is 0; it must be at least 1."
    assert run("bench", text_model, "--lengths", 0).error == "--lengths has 0; a prompt has at least 1 token."
