from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabiyarn_edge.tasks.answers import Entity, read_entities, split_words


def words_of(text):
    return [word.text for word in split_words(text)]


def test_words_and_marks():
    assert words_of('Adénúgà, "Mike" na-enwu (3.30)! \u2026N5') == [
        "Adénúgà", ",", '"', "Mike", '"', "na-enwu", "(", "3.30", ")", "!", "\u2026", "N5",
    ]  # fmt: skip


@given(st.text(st.sampled_from("aọ\u0301 .,-\n!"), max_size=30))
def test_words_are_where_they_say(text):
    words = split_words(text)
    assert all(text[word.start : word.end] == word.text for word in words)
    assert "".join(word.text for word in words) == "".join(text.split())


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("B-PER I-PER O O B-LOC O", [("PER", "Mike Adénúgà"), ("LOC", "Lagos")]),
        ("B-PER B-PER O O B-LOC O", [("PER", "Mike"), ("PER", "Adénúgà"), ("LOC", "Lagos")]),
        ("I-PER I-PER O O I-LOC O", [("PER", "Mike Adénúgà"), ("LOC", "Lagos")]),
        ("B-PER I-ORG O O O O", [("PER", "Mike"), ("ORG", "Adénúgà")]),
        ("B-PER O I-PER", [("PER", "Mike"), ("PER", "dé")]),
        ("B-PER", [("PER", "Mike")]),
        ("B-PER I-PER O O O O B-LOC I-LOC", [("PER", "Mike Adénúgà")]),
        ("babble B- -PER X-PER PER B", []),
        ("", []),
    ],
)
def test_entities(tags, entities):
    text = "Mike Adénúgà dé sí Lagos."
    found = read_entities(text, split_words(text), tags.split(), offset=7)
    assert [(entity.label, entity.text) for entity in found] == entities
    for entity in found:
        assert isinstance(entity, Entity)
        assert text[entity.start - 7 : entity.end - 7] == entity.text
