"""Tools in /v1/chat/completions, as OpenAI's client sends and reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from sabiyarn_edge import EdgeGenerator
from tests.chat.templates import WEATHER
from tests.server.conftest import Server, running
from tests.tiny_tokenizer import END

pytest.importorskip("jinja2")
pytest.importorskip("jsonschema")

MESSAGES: list[Any] = [{"role": "user", "content": "ọjọ́ <tool_call>?"}]
TIME: Any = {"type": "function", "function": {"name": "get_time"}}
CALL = '<tool_call>get_weather\n{"city": "Èkó"}</tool_call>'


@pytest.fixture(scope="module")
def chat_server(chat_folder: Path) -> Iterator[Server]:
    server = Server("--port", "0", "--threads", "1", "--model", f"family={chat_folder}")
    with running(server):
        yield server


@pytest.fixture(scope="module")
def generator(chat_folder: Path) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(chat_folder, num_threads=1)


def saying(generator: EdgeGenerator, text: str) -> dict[str, Any]:
    """Fields of a request whose answer is this text: each of its tokens is biased behind those before it."""
    assert generator.tokenizer is not None
    ids = generator.tokenizer.encode(text, add_special_tokens=False)
    bias = [[ids[: place + 1], 100.0 * (place + 1)] for place in range(len(ids))]
    return {"max_tokens": len(ids), "extra_body": {"sequence_bias": bias}}


@pytest.mark.parametrize("n", [1, 2])
def test_a_call_and_its_result(chat_server: Server, generator: EdgeGenerator, n: int) -> None:
    client = chat_server.client()
    said = saying(generator, f"<reason>r</reason>Dúró. {CALL}{END}")
    choosing = {"temperature": 1, "n": n} if n > 1 else {}
    answer = client.chat.completions.create(
        model="family", messages=MESSAGES, tools=[WEATHER], **said, **choosing
    )
    assert len(answer.choices) == n
    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "Dúró. "
        assert choice.message.model_extra == {"reasoning": "r"}
        (call,) = choice.message.tool_calls
        assert (call.type, call.function.name, call.function.arguments) == (
            *("function", "get_weather", '{"city": "Èkó"}'),
        )
    message = answer.choices[0].message.model_dump()
    result = {"role": "tool", "tool_call_id": call.id, "content": "31"}
    result["tool_call_id"] = message["tool_calls"][0]["id"]
    later = client.chat.completions.create(
        model="family", messages=[*MESSAGES, message, result], tools=[WEATHER], max_tokens=3
    )
    messages = [*MESSAGES, message, result]
    expected = generator.chat(messages, [WEATHER], max_new_tokens=3)
    assert later.choices[0].message.content == expected.content
    assert expected.result is not None and later.usage is not None
    assert later.usage.prompt_tokens == expected.result.prompt_lengths[0]
    assert later.usage.prompt_tokens_details.cached_tokens > later.usage.prompt_tokens * 0.9


def test_a_call_in_a_stream(chat_server: Server, generator: EdgeGenerator) -> None:
    said = saying(generator, f"<task_plan>p</task_plan>Dúró. {CALL}{CALL}{END}")
    stream = chat_server.client().chat.completions.create(
        model="family", messages=MESSAGES, tools=[WEATHER], tool_choice="auto", stream=True, **said
    )
    choices = [chunk.choices[0] for chunk in stream]
    assert "".join(choice.delta.content or "" for choice in choices) == "Dúró. "
    assert "".join((choice.delta.model_extra or {}).get("task_plan", "") for choice in choices) == "p"
    calls = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert [call.index for call in calls] == [0, 1]
    assert len({call.id for call in calls}) == 2
    assert {(call.function.name, call.function.arguments) for call in calls} == {
        ("get_weather", '{"city": "Èkó"}')
    }
    assert [choice.finish_reason for choice in choices[-2:]] == [None, "tool_calls"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_cannot_be_made_is_reported(
    chat_server: Server, generator: EdgeGenerator, stream: bool
) -> None:
    text = '<tool_call>get_weather\n{"town": 1}</tool_call>'
    answer: Any = chat_server.client().chat.completions.create(
        model="family", messages=MESSAGES, tools=[WEATHER], stream=stream, **saying(generator, text + END)
    )
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    parts = [choice.delta if stream else choice.message for choice in choices]
    assert "".join(part.content or "" for part in parts) == text
    assert choices[-1].finish_reason == "stop"
    assert not any(part.tool_calls for part in parts)
    (invalid,) = [call for part in parts for call in (part.model_extra or {}).get("invalid_tool_calls", [])]
    assert "'city' is a required property" in invalid["problem"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_required_call(chat_server: Server, generator: EdgeGenerator, stream: bool) -> None:
    pytest.importorskip("llguidance")
    assert generator.tokenizer is not None
    thoughts = [generator.tokenizer.token_to_id(tag) for tag in ("<reason>", "<task_plan>")]
    answer: Any = chat_server.client().chat.completions.create(
        model="family",
        messages=MESSAGES,
        tools=[TIME],
        tool_choice={"type": "function", "function": {"name": "get_time"}},
        stream=stream,
        extra_body={"suppress_tokens": thoughts},  # a random model never ends them
    )
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    parts = [choice.delta if stream else choice.message for choice in choices]
    (call,) = [call for part in parts for call in part.tool_calls or []]
    assert (call.function.name, call.function.arguments) == ("get_time", "{}")
    assert choices[-1].finish_reason == "tool_calls"


def test_none_calls_nothing(chat_server: Server, generator: EdgeGenerator) -> None:
    said = saying(generator, CALL)
    answer = chat_server.client().chat.completions.create(
        model="family", messages=MESSAGES, tools=[WEATHER], tool_choice="none", **said
    )
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_what_was_left_out_is_told(chat_server: Server) -> None:
    turn = [{"role": "user", "content": "ilé " * 60}, {"role": "assistant", "content": "ọjọ́"}]
    messages: list[Any] = [*turn * 16, *MESSAGES]
    answer = chat_server.client().chat.completions.create(model="family", messages=messages, max_tokens=3)
    assert answer.model_extra["left_out_messages"] > 0
    assert answer.usage is not None and answer.usage.prompt_tokens < 2048


def test_bad_tools(chat_server: Server) -> None:
    client = chat_server.client()
    for fields, message in (
        ({"tools": [WEATHER], "tool_choice": "fly"}, "tool_choice is 'fly'; it must be"),
        ({"tools": [{**WEATHER, "type": "custom"}]}, r"tools\[0\] must be like"),
    ):
        with pytest.raises(openai.BadRequestError, match=message) as refused:
            client.chat.completions.create(model="family", messages=MESSAGES, **fields)
        assert refused.value.param == message.split(" ")[0].split("\\")[0]
