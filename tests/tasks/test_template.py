from __future__ import annotations

import pytest

from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.tasks.template import Template


@pytest.mark.parametrize(
    ("source", "values", "trusted", "parts"),
    [
        (
            "<translate> {text} <{to}>:",
            {"text": "Báwo?", "to": "yor"},
            {"to"},
            [("<translate> ", True), ("Báwo?", False), (" <", True), ("yor", True), (">:", True)],
        ),
        (
            "<qa> {context} {question}",
            {"context": "a", "question": "b"},
            (),
            [("<qa> ", True), ("a", False), (" ", True), ("b", False)],
        ),
        ("{{{text}}}", {"text": "x"}, (), [("{", True), ("", True), ("x", False), ("}", True)]),
    ],
)
def test_parts_say_whose_they_are(source, values, trusted, parts):
    filled = Template(source).fill(values, trusted)
    assert [part for part in filled if part[0]] == [part for part in parts if part[0]]


def test_slots_come_in_order_and_once():
    assert Template("{b} {a} {b}").slots == ("b", "a")


@pytest.mark.parametrize("text", ["{text}", "{", "}}", "{0}", "<yor>", "%s"])
def test_what_a_user_types_is_never_a_template(text):
    filled = Template("<clean> {text} <correct>:").fill({"text": text})
    assert "".join(part for part, _ in filled) == f"<clean> {text} <correct>:"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{text", "not closed"),
        ("text}", "not closed"),
        ("{}", "a slot is a name"),
        ("{0}", "a slot is a name"),
        ("{text.upper}", "a slot is a name"),
        ("{text[0]}", "a slot is a name"),
        ("{text!r}", "formats the slot text"),
        ("{text:>9}", "formats the slot text"),
    ],
)
def test_templates_are_data(source, message):
    with pytest.raises(InvalidInputError, match=message):
        Template(source)
