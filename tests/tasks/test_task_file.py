"""tasks.json: what is read, and what is refused with its line."""

from __future__ import annotations

import json
import re

import pytest

from sabiyarn_edge.errors import InvalidInputError, ModelFolderError
from sabiyarn_edge.tasks.known_prompts import KnownPrompts
from sabiyarn_edge.tasks.task_file import TaskFile

GOOD = {
    "format_version": 1,
    "languages": {"eng": {"name": "English"}, "yor": {"name": "Yoruba", "aliases": ["yo"]}},
    "tasks": {
        "translate": {
            "template": "<translate> {text} <{to}>:",
            "languages": {"to": ["yor"]},
            "sources": ["eng"],
            "unit": "sentence",
            "options": {"num_beams": 5, "stop_strings": ["\n"]},
            "example": {"text": "Good morning.", "to": "yor"},
        },
        "mood": {
            "description": "says how a text sounds",
            "template": "{text} <sentiment> :",
            "answer": "label",
            "labels": ["good", "bad"],
            "max_words": 9,
        },
    },
}


def test_what_stands_in_it():
    file = TaskFile.parse(json.dumps(GOOD), "tasks.json")
    translate, mood = file.task("translate"), file.task("mood")
    assert translate.template.slots == ("text", "to")
    assert translate.text_slots == ("text",)
    assert translate.language("to", "Yorùbá") == "yor"
    assert translate.source("english") == "eng"
    assert (translate.answer, translate.unit, translate.description) == ("text", "sentence", "translate")
    assert dict(translate.options) == {"num_beams": 5, "stop_strings": ["\n"]}
    assert dict(translate.example) == {"text": "Good morning.", "to": "yor"}
    assert (mood.answer, mood.labels, mood.max_words) == ("label", ("good", "bad"), 9)
    assert mood.label_template.source == " {label}"


def test_what_tells_known_prompts_from_others():
    assert TaskFile.parse(json.dumps(GOOD), "f").known_prompts is None
    known = {"least_log_prob": -3, "note": "it knows one text"}
    assert TaskFile.parse(json.dumps({**GOOD, "known_prompts": known}), "f").known_prompts == KnownPrompts(
        -3.0, "it knows one text"
    )


def test_a_folder_without_the_file_has_no_tasks(tmp_path):
    file = TaskFile.load(tmp_path)
    assert not file.tasks
    with pytest.raises(InvalidInputError, match=r"no tasks: its folder has no tasks\.json"):
        file.task("translate")


def test_an_unknown_task_gets_the_list_and_the_nearest():
    with pytest.raises(InvalidInputError, match=r"'translat'.*translate, mood\. Did you mean translate\?"):
        TaskFile.parse(json.dumps(GOOD), "f").task("translat")


def changed(path, value):
    """GOOD with another value at a path; ... takes the key out."""
    values = json.loads(json.dumps(GOOD))
    parent = values
    for key in path[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return values


TRANSLATE, MOOD = ("tasks", "translate"), ("tasks", "mood")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format_version",), 2, "format_version: it is 2, but this version of sabiyarn_edge reads 1"),
        (("format_version",), ..., "it has no 'format_version'"),
        (("known_prompts",), {"note": "x"}, "known_prompts: it has no 'least_log_prob'"),
        (
            ("known_prompts",),
            {"least_log_prob": "-3", "note": "x"},
            'known_prompts.least_log_prob: it is "-3"; it must be a number',
        ),
        (("known_prompts",), {"least_log_prob": True, "note": "x"}, "it is true; it must be a number"),
        (("known_prompts",), {"least_log_prob": -(10**400), "note": "x"}, "it must be a number"),
        (("known_prompts",), {"least_log_prob": float("nan"), "note": "x"}, "it is NaN; it must be a number"),
        (("known_prompts",), {"least_log_prob": -3, "note": ""}, "known_prompts.note: it is \"\"; it must be a text"),
        (("tasks",), ..., "it has no 'tasks'"),
        (("tasks",), [], "tasks: it is a list; it must be an object"),
        (("taks",), {}, "taks: this key is not known; .* Did you mean tasks?"),
        (("languages", "yor"), "Yoruba", 'languages.yor: it is "Yoruba"; it must be an object'),
        (("languages", "yor", "name"), "", 'languages.yor.name: it is ""; it must be a text'),
        (("languages", "yor", "aliases"), "yo", "aliases: .* it must be a list of texts"),
        (("languages", "yor", "aliases"), ["English"], "languages.yor: the name english is another language's"),
        (("languages", "yor", "aliases"), ["eng"], "languages.yor: the name eng is another language's"),
        (("tasks", "Translate!"), {"template": "{text}"}, "small letters, digits and underscores"),
        ((*TRANSLATE, "template"), ..., "tasks.translate: it has no 'template'"),
        ((*TRANSLATE, "template"), "{text", "template: the template '{text' is not closed"),
        ((*TRANSLATE, "template"), "{text.x} {to}", "a slot is a name"),
        ((*TRANSLATE, "template"), "{to}", "no slot for a text"),
        ((*TRANSLATE, "template"), "{text} {to} {options}", "a slot cannot be called options"),
        ((*TRANSLATE, "template"), "{phrase} {to}", "unit: it is about the slot {text}"),
        ((*TRANSLATE, "languages"), {"into": ["yor"]}, "languages.into: the template has no slot {into}"),
        ((*TRANSLATE, "languages"), {"to": ["yo"]}, "to[0]: 'yo' is not a code of .* Did you mean yor?"),
        ((*TRANSLATE, "languages"), {"to": ["yor", "yor"]}, "to[1]: 'yor' stands in the list twice"),
        ((*TRANSLATE, "sources"), ["fra"], "sources[0]: 'fra' is not a code"),
        ((*TRANSLATE, "answer"), "json", "answer: it is \"json\"; it must be one of text, raw, label, tags"),
        ((*TRANSLATE, "unit"), "word", "unit: .* it must be one of text, line, sentence"),
        ((*TRANSLATE, "options"), {"num_beam": 5}, "options.num_beam: .* Did you mean num_beams?"),
        ((*TRANSLATE, "options"), {"num_beams": 0}, "options.num_beams: num_beams is 0, but must be"),
        ((*TRANSLATE, "options"), {"num_beams": 2, "num_return_sequences": 3}, "options: num_return_sequences is 3"),
        ((*TRANSLATE, "labels"), ["a"], 'only a task with "answer": "label" has labels'),
        ((*TRANSLATE, "example"), {"text": "Bawo?"}, "example: it has no 'to', which the template has"),
        ((*TRANSLATE, "example"), {"text": "", "to": "yor"}, "example.text: .* at least one character"),
        ((*TRANSLATE, "example"), {"text": "a", "to": "yo"}, "example.to: 'yo' is not a code of this slot's languages"),
        ((*TRANSLATE, "example"), {"word": "a"}, "example.word: the template has no slot {word}"),
        ((*TRANSLATE, "code"), "print()", "code: this key is not known"),
        ((*TRANSLATE, "description"), "\ud800", "description: the text holds '\\ud800' at position 0, half a"),
        (("languages", "\ud800"), {"name": "x"}, "languages: the text holds '\\ud800'"),
        ((*TRANSLATE, "options"), {"stop_strings": "\ud800"}, "options.stop_strings: stop_strings holds '\\ud800'"),
        ((*MOOD, "labels"), ["good", 3], "labels[1]: it is 3; it must be a text"),
        ((*MOOD, "label_template"), " good", "it must have the slot {label}, and no other"),
        ((*MOOD, "max_words"), 0, "max_words: it is 0; it must be an integer of at least 1"),
        ((*MOOD, "max_words"), True, "max_words: it is true"),
        ((*MOOD, "unit"), "line", "a label is one text's"),
    ],
)  # fmt: skip
def test_what_is_refused(path, value, message):
    text = json.dumps(changed(path, value), indent=1)
    expected = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(InvalidInputError, match=rf"^tasks\.json, line \d+: .*{expected}"):
        TaskFile.parse(text, "tasks.json")


def test_long_lists_are_read_in_one_pass():
    many = [f"a{number}" for number in range(100_000)]  # too many to be compared pair by pair
    task = {"template": "{text}" + "".join(f"{{{name}}}" for name in many), "answer": "label", "labels": many}
    task["example"] = dict.fromkeys(["text", *many], "x")
    languages = {"yor": {"name": "Yoruba", "aliases": many}}
    file = TaskFile.parse(
        json.dumps({"format_version": 1, "languages": languages, "tasks": {"t": task}}), "t"
    )
    assert len(file.task("t").labels) == len(many)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("x" * 10**6,), 1),
        ((*TRANSLATE, "template"), "{" * 10**6 + "{a b"),
        ((*TRANSLATE, "answer"), "x" * 10**6),
        ((*TRANSLATE, "example"), {"text": "a", "to": "x" * 10**6}),
        ((*TRANSLATE, "options"), {"max_new_tokens": "x" * 10**6}),
    ],
)
def test_messages_quote_no_long_text(path, value):
    with pytest.raises(InvalidInputError) as caught:
        TaskFile.parse(json.dumps(changed(path, value)), "f")
    assert len(str(caught.value)) < 1000


def test_the_line_at_fault_is_named():
    text = '{"format_version": 1,\n "tasks": {\n  "a": {"template": "{text}",\n   "options": {\n    "num_beams": -1}}}}'
    with pytest.raises(InvalidInputError, match=r"^t, line 5: tasks\.a\.options\.num_beams: num_beams is -1"):
        TaskFile.parse(text, "t")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{\n "a": }', r"tasks\.json, line 2: this is not JSON"),
        (b"", r"line 1: this is not JSON"),
        (b"[]", r"line 1: it is a list; it must be an object"),
        (b"\xff", "is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    (tmp_path / "tasks.json").write_bytes(content)
    with pytest.raises(ModelFolderError, match=message):
        TaskFile.load(tmp_path)


def test_a_mark_of_byte_order_is_no_fault(tmp_path):
    (tmp_path / "tasks.json").write_text("\ufeff" + json.dumps(GOOD), encoding="utf-8")
    assert set(TaskFile.load(tmp_path).tasks) == {"translate", "mood"}
