from __future__ import annotations

import pytest

from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.tasks.names import find_name

LANGUAGES = {"yor": ("Yoruba", "yo"), "ibo": ("Igbo", "ig"), "tiv": ("Tiv",), "yo": ("Yo language",)}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("yor", "yor"),
        ("YOR", "yor"),
        ("Yorùbá", "yor"),
        ("yoru\u0300ba\u0301", "yor"),
        (" yoruba ", "yor"),
        ("ig", "ibo"),
        ("yo", "yo"),  # a code wins over another's alias
    ],
)
def test_names_without_case_and_marks(given, code):
    assert find_name("to", given, LANGUAGES) == code


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "yorub",
            r"to is 'yorub'; it must be one of yor \(Yoruba\), ibo \(Igbo\), tiv, .*Did you mean yor \(Yoruba\)\?$",
        ),
        ("klingon", r"to is 'klingon'; .*yo \(Yo language\)\.$"),
        ("", r"to is ''"),
        (None, r"to is None"),
        (3, r"to is 3"),
        (["yor"], r"to is \['yor'\]"),
    ],
)
def test_unknown_names_get_the_list_and_the_nearest(given, message):
    with pytest.raises(InvalidInputError, match=message):
        find_name("to", given, LANGUAGES)
