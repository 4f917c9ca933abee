"""Which of SabiYarn's tasks a vocabulary gets, against templates written by hand."""

from __future__ import annotations

import json

import pytest

from sabiyarn_edge.tasks.family import family_tasks
from sabiyarn_edge.tasks.task_file import TaskFile
from tests.tasks.tags import TAGS

FILLED = {
    "translate": ({"to": "yor", "text": "Hello."}, "<translate> Hello. <yor>:"),
    "diacritize": ({"text": "Bawo"}, "<diacritize> Bawo <correct>:"),
    "clean": ({"text": "Bawo"}, "<clean> Bawo <correct>:"),
    "sentiment": ({"text": "Bawo"}, "<classify> Bawo <sentiment> :"),
    "topic": ({"text": "Bawo"}, "<classify> Bawo <topic> :"),
    "classify": ({"text": "Bawo"}, "<classify> Bawo <topic> :"),
    "tag_entities": ({"text": "Mike de ."}, "<NER> Mike de . <tag> :"),
    "identify_language": ({"text": "Bawo"}, "<lang_ID> Bawo <lang_ID_label>:"),
    "summarize": ({"text": "Bawo"}, "<summarize> Bawo <summary>:"),
    "headline": ({"text": "Bawo"}, "<title> Bawo <headline>:"),
    "answer": ({"context": "A de.", "question": "Ta ni?"}, "<qa> A de. Ta ni? <answer>:"),
    "instruct": ({"instruction": "Sing"}, "<prompt> Sing <response>:"),
}


def tasks_of(tags):
    values = family_tasks(set(tags).__contains__)
    return None if values is None else TaskFile.parse(json.dumps(values), "family")


def test_prompts_of_every_task():
    file = tasks_of(TAGS)
    assert set(file.tasks) == set(FILLED)
    for name, (slots, prompt) in FILLED.items():
        parts = file.task(name).template.fill(slots)
        assert "".join(text for text, _ in parts) == prompt


def test_languages_and_labels_are_those_of_the_vocabulary():
    file = tasks_of(TAGS)
    assert list(file.languages) == ["eng", "yor", "hau", "ibo"]
    assert list(file.task("translate").languages["to"]) == ["eng", "yor", "hau", "ibo"]
    assert file.task("identify_language").labels == ("eng", "yor", "hau", "ibo")


@pytest.mark.parametrize(
    ("tags", "tasks"),
    [
        ("<translate> <yor>", {"translate"}),
        ("<translate>", None),  # into no language
        ("<yor> <eng>", None),
        ("<diacritize>", None),
        ("<diacritize> <correct>", {"diacritize"}),
        ("<ner> <tag>", {"tag_entities"}),
        ("<identify> <lang_id> <yor>", {"identify_language"}),
    ],
)
def test_only_tasks_whose_tags_are_there(tags, tasks):
    file = tasks_of(tags.split())
    assert (file and set(file.tasks)) == tasks


def test_the_newer_tags_come_first():
    tags = ["<identify>", "<lang_id>", "<lang_ID>", "<lang_ID_label>", "<yor>", "<ner>", "<NER>", "<tag>"]
    file = tasks_of(tags)
    assert file.task("identify_language").template.source == "<identify> {text} <lang_id>:"
    assert file.task("tag_entities").template.source == "<NER> {text} <tag> :"


def test_all_of_it_is_in_the_form_of_tasks_json():
    assert TaskFile.parse(json.dumps(family_tasks(lambda token: True)), "family").tasks
