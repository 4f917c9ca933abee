"""What tools may be, and the check of arguments against the jsonschema package's verdict."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from sabiyarn_edge.chat.tools import read_tool_choice, read_tools
from sabiyarn_edge.errors import InvalidInputError
from tests.chat.templates import WEATHER

jsonschema = pytest.importorskip("jsonschema")


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **function}}


def with_parameters(**schema: Any) -> list[dict[str, Any]]:
    return [tool(parameters=schema)]


def test_definitions_stay_as_they_were_given() -> None:
    assert [found.definition for found in read_tools([WEATHER, tool()])] == [WEATHER, tool()]
    assert read_tools(None) == read_tools([]) == ()
    given = read_tools([WEATHER])
    assert read_tools(given) == given
    assert "strict" not in read_tools([tool(strict=True)])[0].definition["function"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("f", "tools is a str; it must be a list"),
        (["f"], r"tools\[0\] must be like"),
        ([{"type": "web_search"}], r"tools\[0\] must be like"),
        ([{"type": "custom", "function": {"name": "f"}}], r"tools\[0\] must be like"),
        ([tool(name="a b")], r"tools\[0\].function.name is 'a b'; it must be 1 to 64"),
        ([tool(), tool()], r"tools\[1\] is a second tool with the name f"),
        ([tool(description=5)], r"description is a int; it must be a text"),
        ([tool(parameters="x")], r"parameters is a str; it must be a JSON schema"),
        ([tool(returns="x")], r"function.returns is not supported"),
        (with_parameters(type="array"), r"parameters.type is 'array'; arguments are an \"object\""),
        (with_parameters(type="object", required=5), r"tool f is no JSON schema at \$.required: 5 is not"),
        (with_parameters(properties={"a": {"$ref": "http://x/y"}}), r"refers to http://x/y; only references"),
        (with_parameters(properties={"a": {"enum": [object()]}}), "parameters is not JSON"),
        (with_parameters(patternProperties={"a": {}}), "has patternProperties, which is not supported"),
        (with_parameters(properties={"a": {"pattern": "a\\"}}), "the backslash at its end escapes nothing"),
        (with_parameters(properties={"a": {"pattern": "["}}), r"the pattern '\[', which cannot be used"),
    ],
)
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_tools(given)


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2},
        "day": {"$ref": "#/$defs/day"},
        "how": {"enum": ["a", 1, None]},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"day": {"type": "integer", "minimum": 1, "maximum": 7}},
}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"city": "Kano"}, None),
        ({"city": "Kano", "day": 7, "how": None}, None),
        ({}, "arguments: 'city' is a required property"),
        ({"city": "K"}, "city: 'K' is too short"),
        ({"city": "Kano", "day": 8}, "day: 8 is greater than the maximum of 7"),
        ({"city": "Kano", "day": "8"}, "day: '8' is not of type 'integer'"),
        ({"city": "Kano", "x": 1}, "arguments: Additional properties are not allowed"),
    ],
)
def test_problems_of_arguments(arguments: dict[str, Any], problem: str | None) -> None:
    (checked,) = read_tools([tool(parameters=SCHEMA)])
    found = checked.problem(arguments)
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(arguments) == (found is None)
    assert found is None if problem is None else found is not None and found.startswith(problem)


def test_what_could_run_for_ever_does_not() -> None:
    pytest.importorskip("llguidance")
    loop = {"$ref": "#/$defs/loop"}
    properties = {"a": {"type": "string", "pattern": "^(a+)+$"}, "n": {"multipleOf": 0.5}, "r": loop}
    (checked,) = read_tools([tool(parameters={"properties": properties, "$defs": {"loop": loop}})])
    assert checked.problem({"a": "a" * 60}) is None
    assert checked.problem({"a": "a" * 60 + "!"}) == f"a: '{'a' * 60}!' does not match '^(a+)+$'"
    assert "cannot be checked" in str(checked.problem({"n": 10**400}))
    assert "cannot be checked" in str(checked.problem({"r": 1}))
    nested: dict[str, Any] = {}
    for _ in range(500):
        nested = {"properties": {"a": nested}}
    with pytest.raises(InvalidInputError, match=r"nested too deeply|is not JSON"):
        read_tools([tool(parameters=nested)])


@pytest.mark.parametrize("pattern", ["^[A-Z]{2}$", "ọ", "a|b$", r"^\d+-\d+$"])
@pytest.mark.parametrize("text", ["AB", "ẹọ", "xb", "ab\n", "12-3", "", 'a"b', "A\\B"])
def test_patterns_are_pythons(pattern: str, text: str) -> None:
    """Where both mean the same by them."""
    pytest.importorskip("llguidance")
    (checked,) = read_tools(with_parameters(properties={"a": {"pattern": pattern}}))
    expected = re.search(pattern.replace("$", r"\Z"), text) is not None  # $ is the end, not the last line's
    assert (checked.problem({"a": text}) is None) == expected


def test_without_parameters_there_are_no_arguments() -> None:
    (checked,) = read_tools([tool()])
    assert checked.problem({}) is None
    assert checked.problem({"a": 1}) is not None


def test_choices() -> None:
    tools = read_tools([WEATHER, tool()])
    assert read_tool_choice(None, tools).mode == read_tool_choice("auto", tools).mode == "auto"
    assert read_tool_choice("none", tools).mode == read_tool_choice(None, ()).mode == "none"
    assert read_tool_choice("required", tools).name is None
    for by_name in ("f", {"type": "function", "function": {"name": "f"}}):
        assert vars(read_tool_choice(by_name, tools)) == {"mode": "required", "name": "f"}
    for wrong in ("g", 5, {"type": "function"}, {"type": "allowed_tools"}):
        with pytest.raises(InvalidInputError, match=r'must be "none", .* the name of a tool: get_weather, f'):
            read_tool_choice(wrong, tools)
    for needs_tools in ("required", "f"):
        with pytest.raises(InvalidInputError, match=r"but there are no tools\. Give tools"):
            read_tool_choice(needs_tools, ())


def test_without_jsonschema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(InvalidInputError, match=r'pip install "\.\[chat\]"'):
        read_tools([tool()])
