"""Commands of tasks, on the bundled model and on folders whose tasks.json is written here."""

from __future__ import annotations

import io
import json
import re
import sys
from types import SimpleNamespace

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.cli import tasks as tasks_command

# A random model never ends an answer.
pytestmark = pytest.mark.filterwarnings("ignore::sabiyarn_edge.tasks.runner.CutAnswerWarning")

ENGLISH = "Everyone has the right to life, liberty and the security of person."

TASKS = {
    "format_version": 1,
    "languages": {"yor": {"name": "Yoruba", "aliases": ["yo"]}},
    "tasks": {
        "mood": {"template": "{text} :", "answer": "label", "labels": ["ọmọ", "ilé"]},
        "classify": {"template": "{text} :", "answer": "label"},
        "tag_entities": {"template": "{text} #", "answer": "tags", "options": {"max_new_tokens": 3}},
        "clean": {"template": "{text} =", "options": {"max_new_tokens": 5}},
        "say_in": {
            "description": "says it",
            "template": "{language}: {text} ({tone})",
            "languages": {"language": ["yor"]},
            "options": {"max_new_tokens": 5},
        },
    },
}


@pytest.fixture(scope="module")
def nano():
    return EdgeGenerator.from_pretrained("nano", num_threads=1)


@pytest.fixture
def tasked(model):
    """A tiny model with TASKS."""
    (model / "tasks.json").write_text(json.dumps(TASKS), encoding="utf-8")
    return model


@pytest.fixture
def generator(tasked):
    return EdgeGenerator.from_pretrained(tasked, num_threads=1)


def feed(monkeypatch, content: bytes):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_translates(run, nano):
    ran = run("translate", "--to", "yor", ENGLISH)
    assert (ran.code, ran.out, ran.err) == (0, nano.translate(ENGLISH, to="yor") + "\n", "")
    assert run("translate", "--to", "Yorùbá", "--source", "en", ENGLISH) == ran


def test_reads_a_document_from_standard_input(run, nano, monkeypatch):
    feed(monkeypatch, f"{ENGLISH}\n\n{ENGLISH}\n".encode())
    ran = run("translate", "--to", "ibo")
    igbo = nano.translate(ENGLISH, to="ibo")
    assert ran.out == f"{igbo}\n\n{igbo}\n"


def test_lines_are_texts_of_their_own(run, nano, monkeypatch):
    monkeypatch.setattr(tasks_command, "LINES_TOGETHER", 2)
    feed(monkeypatch, f"\ufeff{ENGLISH}\r\n\n  \n{ENGLISH}".encode())
    ran = run("translate", "--to", "hau", "--lines")
    hausa = nano.translate(ENGLISH, to="hau")
    assert ran.out.splitlines() == [hausa, "", "", hausa]


def test_json(run, nano, monkeypatch):
    feed(monkeypatch, f"{ENGLISH}\n\n".encode())
    ran = run("translate", "--to", "tiv", "--lines", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == [
        {"text": nano.translate(ENGLISH, to="tiv")}, None,
    ]  # fmt: skip


def test_a_task_that_only_the_folder_knows_is_a_command(run, nano, tasked, generator):
    ran = run("continue", "--language", "yor", "Gbogbo ènìyàn")
    assert ran.out == nano.run_task("continue", text="Gbogbo ènìyàn", language="yor") + "\n"
    ran = run("say-in", "omo", "--language", "yo", "--tone", "loud", f"--model={tasked}")
    assert ran.out.removesuffix("\n") == generator.run_task("say_in", text="omo", language="yor", tone="loud")


def test_a_slot_that_is_called_like_an_option_is_refused(run, tasked):
    tasks = {"odd": {"template": "{text} {fit}"}}
    (tasked / "tasks.json").write_text(json.dumps({**TASKS, "tasks": tasks}), encoding="utf-8")
    ran = run("odd", "omo", "--fit", "x", "--model", tasked)
    assert (ran.code, ran.out) == (2, "")
    assert ran.error == (
        "the task odd has a slot with the name of an option, --fit. Rename the slot, or run `sabiyarn-edge batch "
        "--task odd --slot NAME=TEXT`."
    )


def test_labels(run, tasked, generator):
    ran = run("classify", "--labels", "mood", "omo", "--model", tasked)
    found = generator.classify("omo", "mood").probabilities
    assert ran.out.splitlines() == [f"{label}\t{probability:.4f}" for label, probability in found.items()]
    ran = run("classify", "--labels", "ilé, ọmọ,oṣù", "omo\nile", "--lines", "--model", tasked)
    assert ran.out.splitlines() == [
        f"{found.label}\t{found.probability:.4f}"
        for found in generator.classify(["omo", "ile"], ["ilé", "ọmọ", "oṣù"])
    ]
    ran = run("classify", "--labels", "mood", "omo", "--json", "--model", tasked)
    assert json.loads(ran.out)["label"] == generator.classify("omo", "mood").label


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ((), "PER\t0\t4\tMike\nLOC\t8\t13\tLagos\n"),
        (("--lines",), "PER\t0\t4\tMike\tLOC\t8\t13\tLagos\n"),
        (
            ("--json",),
            '{"entities": [{"label": "PER", "text": "Mike", "start": 0, "end": 4}, '
            '{"label": "LOC", "text": "Lagos", "start": 8, "end": 13}]}\n',
        ),
    ],
)
def test_entities(run, tasked, monkeypatch, flags, shown):
    def answers(self, prompts, max_in_flight, options):
        for _ in prompts:
            yield SimpleNamespace(text="B-PER O B-LOC", finish_reasons=["eos"])

    monkeypatch.setattr(EdgeGenerator, "_map", answers)
    assert run("tag-entities", "Mike de Lagos", "--model", tasked, *flags).out == shown


def test_options_of_the_task_can_be_changed(run, tasked, generator):
    ran = run("clean", "omo", "--model", tasked, "--option", "max_new_tokens=2")
    assert ran.out.strip() == generator.clean("omo", max_new_tokens=2)
    assert "warning: 1 of 1 answers of the task clean were cut" in ran.err


def test_options_that_change_nothing_are_said_once(run, tasked):
    ran = run("mood", "a", "--model", tasked, "--option", "max_new_tokens=5", "--option", "top_k=3")
    assert ran.code == 0
    [said] = [line for line in ran.err.splitlines() if "change nothing: max_new_tokens" in line]
    assert said == (
        "sabiyarn-edge: warning: the task mood scores its labels and generates nothing, so these options change "
        "nothing: max_new_tokens, top_k."
    )


def test_special_tokens_are_text_unless_asked_for(run, nano):
    typed = f"{ENGLISH} <hau>"
    ran = run("translate", "--to", "yor", "--special-tokens", typed)
    assert ran.out.strip() == nano.run_task("translate", text=typed, to="yor", special_tokens=True)


def test_tasks_are_listed(run, tasked):
    ran = run("tasks", tasked)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert "say_in: says it" in lines
    assert "  template   {language}: {text} ({tone})" in lines
    assert "  language   yor (Yoruba)" in lines
    assert "  labels     ọmọ, ilé" in lines
    assert "  options    max_new_tokens=3" in lines
    facts = json.loads(run("tasks", tasked, "--json").out)
    assert list(facts) == list(TASKS["tasks"])
    assert facts["say_in"]["languages"] == {"language": {"yor": "Yoruba"}}
    assert "translate: gives" in run("tasks").out
    assert run("info", tasked).out.count("mood, classify, tag_entities, clean, say_in") == 1
    assert json.loads(run("info", tasked, "--json").out)["tasks"] == facts


def test_what_a_terminal_would_act_on_is_written_out(run, run_process, model):
    task = {"template": "{text} \x1b[1m", "description": "cut\x1b[31m 100%", "labels": ["a\x9bm", "b"]}
    values = {"format_version": 1, "tasks": {"mood": {**task, "answer": "label"}}}
    (model / "tasks.json").write_text(json.dumps(values), encoding="utf-8")
    listed = run("tasks", model).out
    assert "mood: cut\\x1b[31m 100%" in listed
    assert "template   {text} \\x1b[1m" in listed
    assert "labels     a\\x9bm, b" in listed
    assert "Cut\\x1b[31m 100%" in run_process("mood", "--model", model, "--help").out


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("translate", "a"), 2, "required: --to"),
        (("translate", "--to", "yorub", "a"), 2, r"--to is 'yorub'; .*Did you mean yor \(Yoruba\)\?"),
        (("translate", "--to", "yorub", "a word to you"), 2, "--to is 'yorub'"),
        (("translate", "--to", "to", "a"), 2, "^to is 'to'"),
        (
            ("translate", "--to", "yor", "--source", "fr", "a"),
            2,
            r"source is 'fr'; it must be one of eng \(English\)",
        ),
        (("translate", "--to", "yor", "--num-beams", "2", "a"), 2, "use --option num_beams=VALUE"),
        (("translate", "--to", "yor", "--option", "num_beam=2", "a"), 2, "did you mean num_beams"),
        (("summarize", "a"), 2, "'summarize'; it must be one of translate, diacritize"),
        (("classify", "--labels", "a,b", "c"), 2, "'classify'; it must be one of"),
        (("continue", "a"), 2, "required: --language"),
        (("proceed", "a"), 2, "invalid choice: 'proceed'"),
        (("translate", "--to", "yor", "--model", "nowhere", "a"), 1, "nowhere is not a folder"),
        (("tasks", "nowhere"), 1, "nowhere is not a folder"),
    ],
)
def test_what_is_refused(run, arguments, code, error):
    ran = run(*arguments)
    assert ran.code == code
    assert re.search(error, ran.error)


def test_input_that_is_not_utf8(run, monkeypatch):
    feed(monkeypatch, b"good\n\xff\n")
    assert "line 2 of standard input is not UTF-8" in run("translate", "--to", "yor", "--lines").error


def test_a_folder_without_tasks(run, text_model):
    assert "has no tasks.json, so the model has no tasks" in run("tasks", text_model).error
    assert "this model has no tasks" in run("clean", "a", "--model", text_model).error
    assert "none (no tasks.json)" in run("info", text_model).out


def test_a_damaged_tasks_file_names_the_line(run, model):
    (model / "tasks.json").write_text('{"format_version": 1,\n "tasks": {"clean": {}}}')
    for arguments in (("tasks", model), ("clean", "a", "--model", model), ("info", model)):
        ran = run(*arguments)
        assert ran.code == 1
        assert "tasks.json, line 2: tasks.clean: it has no 'template'" in ran.error


def test_in_a_locale_without_unicode(run_process, nano):
    ran = run_process(
        "translate", "--to", "yor", stdin=ENGLISH.encode(), env={"LC_ALL": "C", "PYTHONUTF8": "0"}
    )
    assert ran.out == nano.translate(ENGLISH, to="yor") + "\n"
