"""Answers told apart, whatever the pieces are that they come in."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge.chat.answer import AnswerReader
from sabiyarn_edge.chat.calls import written_call
from sabiyarn_edge.chat.result import Answer
from sabiyarn_edge.chat.tools import Tool, read_tools
from tests.chat.templates import WEATHER

pytest.importorskip("jsonschema")


def tools() -> dict[str, Tool]:
    return {tool.name: tool for tool in read_tools([WEATHER])}


def read(text: str, cuts: list[int] | None = None, *, calls: bool = True) -> Answer:
    reader, answer = AnswerReader(tools() if calls else None), Answer()
    borders = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts or [])})
    for first, end in itertools.pairwise(borders):
        answer.add(reader.push(text[first:end]))
    answer.add(reader.finish())
    return answer


def fields(answer: Answer) -> tuple[str, str, str, list[Any], list[str]]:
    calls = [(call.name, call.arguments) for call in answer.tool_calls]
    return (
        answer.content,
        answer.reasoning,
        answer.task_plan,
        calls,
        [c.problem for c in answer.invalid_calls],
    )


KANO = '<tool_call>get_weather\n{"city": "Kánò"}</tool_call>'
CALL = ("get_weather", {"city": "Kánò"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", "", "", [], [])),
        (" a < b\n", (" a < b\n", "", "", [], [])),
        ("<reason>r</reason><task_plan>p</task_plan>a", ("a", "r", "p", [], [])),
        ("\n<reason>r\n</reason>\n\n<task_plan> p</task_plan>\n a ", ("a ", "r\n", " p", [], [])),
        ("a <reason>r</reason>", ("a <reason>r</reason>", "", "", [], [])),  # it stands first or is text
        (KANO, ("", "", "", [CALL], [])),
        (f"<reason>r</reason>{KANO}\n", ("", "r", "", [CALL], [])),
        (f"Wait. {KANO} {KANO}\nb", ("Wait. b", "", "", [CALL, CALL], [])),
        (f"{KANO}<reason>r</reason>", ("<reason>r</reason>", "", "", [CALL], [])),
        ("<reason>never ends", ("", "never ends", "", [], [])),
        ("<reas", ("<reas", "", "", [], [])),
        ("<reason>r</reason>  ", ("", "r", "", [], [])),
        (KANO[:-3], ("", "", "", [], ["it has no </tool_call>: the answer ended before the call did"])),
        (
            "<tool_call>fly\n{}</tool_call>b",
            ("b", "", "", [], ["there is no tool 'fly'; the tools are get_weather"]),
        ),
        (
            "<tool_call>get_weather\n[1]</tool_call>",
            (
                "",
                "",
                "",
                [],
                ["the arguments of get_weather are no JSON object: it is a list, not an object"],
            ),
        ),
        (
            '<tool_call>get_weather\n{"days": []}</tool_call>',
            (
                *("", "", "", []),
                [
                    "the arguments of get_weather do not obey its schema: arguments: 'city' is a required property"
                ],
            ),
        ),
    ],
)
@settings(max_examples=10)
@given(cuts=st.lists(st.integers(0, 200), max_size=12))
def test_sections(text: str, expected: Any, cuts: list[int]) -> None:
    assert fields(read(text, cuts)) == expected
    assert fields(read(text, list(range(len(text))))) == expected


@given(st.text(st.sampled_from("<>/ atolcre_sn\n"), max_size=40), st.lists(st.integers(0, 60), max_size=9))
def test_text_without_sections_stays_as_it_is(text: str, cuts: list[int]) -> None:
    assert fields(read(text, cuts, calls=False)) == (text, "", "", [], [])


def test_where_nothing_may_be_called_a_call_is_text() -> None:
    assert fields(read(KANO, calls=False)) == (KANO, "", "", [], [])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), values, max_size=4), st.booleans())
def test_calls_round_trip(arguments: dict[str, Any], ascii_only: bool) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    (any_tool,) = read_tools([tool])
    written = json.dumps(arguments, ensure_ascii=ascii_only)
    reader = AnswerReader({"f": any_tool})
    answer = Answer()
    answer.add(reader.push(written_call("f", written)))
    answer.add(reader.finish())
    if "</tool_call>" in written:
        return
    (call,) = answer.tool_calls
    assert (call.name, call.arguments, call.written_arguments) == ("f", arguments, written)
    assert answer.message["tool_calls"][0]["function"] == {"name": "f", "arguments": written}


def test_what_is_certain_is_shown_at_once() -> None:
    reader = AnswerReader(tools())
    shown = [
        reader.push(piece) for piece in ("<rea", "son>a", "b</", "x</reason>", "c <", "d<tool", "_call>")
    ]
    assert [(delta.reasoning, delta.content) for delta in shown] == [
        *(("", ""), ("a", ""), ("b", ""), ("</x", ""), ("", "c "), ("", "<d"), ("", "")),
    ]
