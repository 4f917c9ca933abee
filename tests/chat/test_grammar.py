"""Calls that must be made: their form and their arguments' schema hold, whatever the model would write."""

from __future__ import annotations

from typing import Any

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.chat.grammar import call_grammar
from sabiyarn_edge.chat.tools import Tool, read_tools
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.chat.family import family_tokenizer
from tests.tiny_tokenizer import END, tiny_tokenizer

jsonschema = pytest.importorskip("jsonschema")
llguidance = pytest.importorskip("llguidance")

ALARM: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "set_alarm",
        "parameters": {
            "type": "object",
            "properties": {
                "hour": {"type": "integer", "minimum": 0, "maximum": 23},
                "days": {"type": "array", "items": {"enum": ["ọjọ́ ajé", "Jumma'a"]}, "maxItems": 2},
                "loud": {"type": "boolean"},
            },
            "required": ["hour", "days", "loud"],
            "additionalProperties": False,
        },
    },
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "get_time"}}
MESSAGES = [{"role": "user", "content": "jí mi"}]


def accepts(grammar: str, tokenizer: Tokenizer, text: str) -> bool:
    """Whether llguidance, by itself, takes a whole text's tokens and may end there."""
    backend = tokenizer.backend
    vocabulary = llguidance.LLTokenizer(backend.to_str(), eos_token=backend.token_to_id(END))
    matcher = llguidance.LLMatcher(vocabulary, llguidance.grammar_from("lark", grammar))
    assert not matcher.get_error()
    ids = tokenizer.encode(text, add_special_tokens=False)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


CALL = '<tool_call>set_alarm\n{"hour": 7, "days": ["ọjọ́ ajé"], "loud": true}</tool_call>'


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (CALL, True),
        ("<tool_call>get_time\n{}</tool_call>", True),
        (f"<reason>ó < 7\n{{}}</reason>{CALL}", True),
        (f"<reason>a</reason><task_plan>b</task_plan>{CALL}", True),
        (f"<task_plan>b</task_plan>{CALL}", True),
        (f"<task_plan>b</task_plan><reason>a</reason>{CALL}", False),
        (f"{CALL}{CALL}", False),
        (f"Ó dára. {CALL}", False),
        (CALL.replace("7", "24"), False),
        (CALL.replace(', "loud": true', ""), False),
        (CALL.replace("set_alarm", "set_clock"), False),
        (CALL.removesuffix("</tool_call>"), False),
        ("Ó dára.", False),
    ],
)
def test_what_the_grammar_allows(text: str, allowed: bool) -> None:
    tokenizer = Tokenizer(family_tokenizer())
    assert accepts(call_grammar(read_tools([ALARM, TIME]), tokenizer), tokenizer, text) == allowed
    if allowed and "<reason>" not in text and "<task_plan>" not in text:  # tags that are no tokens
        plain = Tokenizer(tiny_tokenizer())
        assert accepts(call_grammar(read_tools([ALARM, TIME]), plain), plain, text)


def without_thoughts(generator: EdgeGenerator) -> dict[str, Any]:
    """A random model never ends them."""
    assert generator.tokenizer is not None
    tags = ("<reason>", "<task_plan>")
    return {
        "max_new_tokens": 200,
        "suppress_tokens": [generator.tokenizer.token_to_id(tag) for tag in tags],
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        *({"do_sample": True, "top_k": 0, "temperature": 3.0, "seed": seed} for seed in range(6)),
        {"num_beams": 3},
    ],
)
@pytest.mark.parametrize("choice", ["required", "set_alarm", "get_time"])
def test_required_calls_are_valid(generator: EdgeGenerator, choice: str, options: dict[str, Any]) -> None:
    options = {**options, **without_thoughts(generator)}
    answer = generator.chat(MESSAGES, [ALARM, TIME], choice, **options)
    (call,) = answer.tool_calls
    assert call.name in ({choice} if choice != "required" else {"set_alarm", "get_time"})
    if call.name == "set_alarm":
        jsonschema.validate(call.arguments, ALARM["function"]["parameters"])
    assert (answer.content, answer.invalid_calls, answer.finish_reason) == ("", [], "stop")


def test_a_required_call_in_a_stream_and_a_session(generator: EdgeGenerator) -> None:
    stream = generator.chat_stream(MESSAGES, [ALARM, TIME], "get_time", **without_thoughts(generator))
    calls = [call for delta in stream for call in delta.tool_calls]
    assert [call.name for call in calls] == ["get_time"]
    session = generator.chat_session(MESSAGES, [ALARM, TIME])
    asked = session.send("báyìí", "get_time", **without_thoughts(generator))
    (call,) = asked.tool_calls
    answer = session.send({"role": "tool", "tool_call_id": call.id, "content": "07:00"}, max_new_tokens=3)
    assert asked.result is not None and answer.result is not None
    assert answer.result.timings.reused_tokens == asked.result.lengths[0] - 1


def test_a_call_that_was_cut_is_reported(generator: EdgeGenerator) -> None:
    answer = generator.chat(MESSAGES, [ALARM], "set_alarm", max_new_tokens=12)
    assert (answer.tool_calls, answer.finish_reason) == ([], "length")
    assert answer.invalid_calls or answer.reasoning or answer.task_plan


def test_another_constraint_is_refused(generator: EdgeGenerator) -> None:
    with pytest.raises(InvalidInputError, match="tool_choice asks for a call, but choices asks for"):
        generator.chat(MESSAGES, [TIME], "required", choices=["a", "b"])
    tool: Tool
    (tool,) = read_tools([TIME])
    assert tool.schema["additionalProperties"] is False


def test_numbers_that_would_be_rounded_are_refused() -> None:
    schema = {"type": "object", "properties": {"id": {"const": 2**53 + 1}}}
    tools = read_tools([{"type": "function", "function": {"name": "find", "parameters": schema}}])
    with pytest.raises(
        InvalidInputError, match="of const in the schema of the tool find is 9007199254740993"
    ):
        call_grammar(tools, Tokenizer(family_tokenizer()))
