"""What messages may be."""

from __future__ import annotations

from typing import Any

import pytest

from sabiyarn_edge.chat.messages import Arguments, read_messages
from sabiyarn_edge.errors import InvalidInputError
from tests.chat.templates import CALLING

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def test_one_form() -> None:
    given = [
        {"role": "developer", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
        # as OpenAI's client gives an answer back
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "c1", "content": "d"},
        {"role": "assistant", "content": "e", "reasoning_content": "f", "tool_calls": None},
    ]
    read = read_messages(given)
    assert [(message["role"], message["content"]) for message in read] == [
        *(("system", "a"), ("user", "bc"), ("assistant", ""), ("tool", "d"), ("assistant", "e")),
    ]
    assert read[3]["name"] == "f"
    assert read[4]["reasoning"] == "f"
    arguments = read[2]["tool_calls"][0]["function"]["arguments"]
    assert (arguments, str(arguments)) == ({"a": 1}, '{"a": 1}')
    assert read_messages(read) == read


def test_arguments_may_be_a_mapping() -> None:
    arguments = read_messages(CALLING)[2]["tool_calls"][0]["function"]["arguments"]
    assert isinstance(arguments, Arguments)
    assert arguments.written == '{"city": "Ìbàdàn <1>", "days": [1, 2]}'


def called(**changes: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "tool_calls": [{**CALL, **changes}]}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hello", "messages is a str; it must be a list like"),
        ({"role": "user"}, "messages is a dict"),
        ([], "messages is empty"),
        (["hello"], r"messages\[0\] is a str; it must be a mapping"),
        ([{"content": "a"}], r"messages\[0\].role is None"),
        ([{"role": 1, "content": "a"}], r"messages\[0\].role is 1"),
        ([{"role": "user"}], r"messages\[0\].content is missing"),
        ([{"role": "user", "content": 5}], r"messages\[0\].content is a int"),
        ([{"role": "user", "content": "\ud800"}], r"messages\[0\].content: the text holds .*surrogate"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            r"messages\[0\].content\[0\] is of type 'image_url'; only text parts",
        ),
        ([{"role": "user", "content": "a", "audio": {"id": 1}}], "the field audio, which is not supported"),
        ([{"role": "user", "content": "a", "tool_calls": [CALL]}], "its role is user; it must be assistant"),
        ([{"role": "assistant", "tool_calls": "f"}], r"messages\[0\].tool_calls is a str"),
        (called(function=None), r"messages\[0\].tool_calls\[0\] must be like"),
        (called(function={"arguments": "{}"}), r"function.name is missing"),
        (called(function={"name": "f", "arguments": "{"}), "function.arguments is no JSON object"),
        (called(function={"name": "f", "arguments": "[1]"}), "it is a list, not an object"),
        (called(function={"name": "f", "arguments": '{"a": NaN}'}), "NaN is no JSON"),
        (
            called(function={"name": "f", "arguments": '{"a":' + "[" * 10**5}),
            "nested too deeply|no JSON object",
        ),
        ([{"role": "tool", "content": "a"}], "give the tool_call_id of the call, or a name"),
        (
            [*called(), {"role": "tool", "content": "a", "tool_call_id": "c2"}],
            r"messages\[1\].tool_call_id is 'c2', but no message before it has such a call \(c1\)",
        ),
    ],
)
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_messages(given)
