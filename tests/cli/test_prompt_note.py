"""The note on prompts that a model cannot know, on a tiny model whose tasks.json draws the line."""

from __future__ import annotations

import json

import pytest

from sabiyarn_edge import EdgeGenerator

TASKS = {"say": {"template": "{text} :", "options": {"max_new_tokens": 2}}}
TEXT = "Gbogbo ènìyàn ni a bí"

# A random model never ends an answer.
pytestmark = pytest.mark.filterwarnings("ignore::sabiyarn_edge.tasks.runner.CutAnswerWarning")


@pytest.fixture
def mean(text_model):
    """mean(text): the mean log-probability of a prompt's tokens but the first."""
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)

    def mean(text):
        [score] = generator.score([text])
        return float(score.log_probs.mean())

    return mean


@pytest.fixture
def draw_line(model):
    """draw_line(least, note): write a tasks.json that says how prompts are told."""

    def draw(least, note="it knows one text"):
        known = {"least_log_prob": least, "note": note}
        (model / "tasks.json").write_text(
            json.dumps({"format_version": 1, "known_prompts": known, "tasks": TASKS})
        )

    return draw


def test_a_prompt_below_the_line_is_noted(run, model, draw_line, mean):
    arguments = ("generate", TEXT, "--model", model, "--max-new-tokens", "2")
    draw_line(mean(TEXT) + 0.01)
    below = run(*arguments)
    [note, speed] = below.err.splitlines()
    assert note.startswith("sabiyarn-edge: note: it knows one text, and this prompt is none of it")
    assert note.endswith(f"is {mean(TEXT):.2f}, below {mean(TEXT) + 0.01:.2f}")
    assert speed.startswith("[")
    draw_line(mean(TEXT) - 0.01)
    above = run(*arguments)
    assert len(above.err.splitlines()) == 1
    assert above.out == below.out


def test_a_note_that_a_terminal_would_act_on_is_written_out(run, model, draw_line, mean):
    draw_line(mean(TEXT) + 0.01, note="it knows\x1b[31m")
    assert (
        "note: it knows\\x1b[31m, and" in run("generate", TEXT, "--model", model, "--max-new-tokens", "2").err
    )


def test_a_tasks_whole_prompt_is_scored_and_several_get_one_note(run, model, draw_line, mean):
    draw_line(mean(f"{TEXT} :") - 0.01)
    assert "note" not in run("say", TEXT, "--model", model).err
    draw_line(mean(f"{TEXT} :") + 0.01)
    ran = run("say", f"{TEXT}\n{TEXT}", "--lines", "--model", model)
    assert ran.err.count("note: it knows one text") == 1
    assert len(ran.out.splitlines()) == 2


def test_ids_are_scored_too_and_a_single_token_says_nothing(run, model, draw_line):
    draw_line(0.0)
    arguments = ("--ids", "--model", model, "--max-new-tokens", "2")
    assert "note" in run("generate", "5 7 9", *arguments).err
    assert "note" not in run("generate", "5", *arguments).err
    assert "note" in run("generate", "5 " * 90, *arguments).err


@pytest.mark.parametrize("content", [None, "{", json.dumps({"format_version": 1, "tasks": TASKS})])
def test_without_a_line_there_is_no_note(run, model, content):
    if content is not None:
        (model / "tasks.json").write_text(content)
    ran = run("generate", TEXT, "--model", model, "--max-new-tokens", "2", "--quiet")
    assert (ran.code, ran.err) == (0, "")


def test_a_session_goes_on_without_a_note(run, model, draw_line, tmp_path):
    draw_line(0.0)
    arguments = ("--model", model, "--max-new-tokens", "2", "--session", tmp_path / "text.session")
    assert "note" not in run("generate", TEXT, *arguments).err


@pytest.mark.parametrize("prompt", ["", "\udc80"])
def test_what_is_refused_is_refused_as_without_a_line(run, model, draw_line, prompt):
    arguments = ("generate", prompt, "--model", model)
    expected = run(*arguments)
    draw_line(0.0)
    assert run(*arguments) == expected
    assert expected.code == 2
