from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sabiyarn_edge.tasks.json_lines import line_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def paths(value, path=()):
    """Every path in a value, with the value."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from paths(child, (*path, key))


@given(values)
def test_lines_of_all_places(value):
    """With a value on each line, the marked value is on the line where the mark is."""
    for path, found in paths(value):
        text = json.dumps(value, indent=1)
        before = text.splitlines()[line_of(text, path) - 1].strip().rstrip(",")
        begin = json.dumps(found, indent=1).splitlines()[0]
        assert before.endswith(begin)


def test_a_place_that_is_not_there_is_its_parents():
    text = '{\n "tasks": {\n  "a": [1,\n 2]\n }\n}'
    assert line_of(text, ("tasks", "a", 1)) == 4
    assert line_of(text, ("tasks", "b")) == 2
    assert line_of(text, ("tasks", "a", "x")) == 3
    assert line_of(text, ()) == 1
