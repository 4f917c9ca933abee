"""chat, chat_stream and their asyncio twins: what they give, and what they refuse."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError
from tests.chat.family import saying
from tests.chat.templates import WEATHER
from tests.tiny_tokenizer import END

pytest.importorskip("jsonschema")

MESSAGES = [{"role": "system", "content": "ẹ jọ̀ọ́"}, {"role": "user", "content": "ọmọ"}]
CALL = '<tool_call>get_weather\n{"city": "Èkó"}</tool_call>'
SAID = f"<reason>ríro</reason><task_plan>1. ọjọ́</task_plan>Dúró. {CALL}{END}"


def test_it_generates_what_generate_does(generator: EdgeGenerator) -> None:
    prompt = generator.chat_model.prompt(MESSAGES)
    options: dict[str, Any] = {"max_new_tokens": 9, "do_sample": True, "seed": 4}
    expected = generator.generate(prompt.ids, **options)
    answer = generator.chat(MESSAGES, **options)
    assert answer.result is not None
    assert answer.result.sequences.tolist() == expected.sequences.tolist()
    assert (answer.content, answer.finish_reason) == (expected.text, expected.finish_reasons[0])
    assert answer.message == {"role": "assistant", "content": expected.text}
    stream = generator.chat_stream(MESSAGES, **options)
    deltas = list(stream)
    assert "".join(delta.content for delta in deltas) == expected.text
    assert [delta.finish_reason for delta in deltas[-2:]] == ["", "length"]
    assert stream.result is not None and stream.result.content == expected.text


def test_an_answer_with_everything_in_it(generator: EdgeGenerator) -> None:
    assert generator.tokenizer is not None
    said = saying(generator.tokenizer, SAID)
    answer = generator.chat(MESSAGES, [WEATHER], **said)
    assert (answer.reasoning, answer.task_plan, answer.content) == ("ríro", "1. ọjọ́", "Dúró. ")
    (call,) = answer.tool_calls
    assert (call.name, call.arguments, answer.finish_reason) == ("get_weather", {"city": "Èkó"}, "eos")
    function = {"name": "get_weather", "arguments": '{"city": "Èkó"}'}
    assert answer.message == {
        **{"role": "assistant", "content": "Dúró. ", "reasoning": "ríro", "task_plan": "1. ọjọ́"},
        "tool_calls": [{"id": call.id, "type": "function", "function": function}],
    }
    stream = generator.chat_stream(MESSAGES, [WEATHER], **saying(generator.tokenizer, SAID))
    deltas = list(stream)
    assert len([delta for delta in deltas if delta.reasoning]) > 1  # as it comes
    assert [delta.tool_calls[0].arguments for delta in deltas if delta.tool_calls] == [call.arguments]
    assert deltas[-1].finish_reason == "eos"
    assert stream.result is not None and stream.result.content == "Dúró. "
    # It can go on from there.
    more = [*MESSAGES, answer.message, {"role": "tool", "tool_call_id": call.id, "content": "31"}]
    assert "<tool_result>get_weather\n31</tool_result>" in generator.chat_model.prompt(more).text


def test_invalid_calls_are_reported(generator: EdgeGenerator) -> None:
    assert generator.tokenizer is not None
    text = '<tool_call>get_weather\n{"town": "Èkó"}</tool_call>'
    answer = generator.chat(MESSAGES, [WEATHER], **saying(generator.tokenizer, text + END))
    assert (answer.content, answer.tool_calls) == ("", [])
    (invalid,) = answer.invalid_calls
    assert invalid.text == text
    assert "'city' is a required property" in invalid.problem
    cut = generator.chat(MESSAGES, [WEATHER], **saying(generator.tokenizer, text[:-12]))
    assert (cut.finish_reason, cut.invalid_calls[0].text) == ("length", text[:-12])


def test_without_tools_there_are_no_calls(generator: EdgeGenerator) -> None:
    assert generator.tokenizer is not None
    for tools, choice in ((None, "auto"), ([WEATHER], "none")):
        said = saying(generator.tokenizer, f"a{END}")
        config = generator.chat_model.prompt(MESSAGES, tools=tools, tool_choice=choice).constrained(
            generator.generation_config
        )
        call = generator.tokenizer.token_to_id("<tool_call>")
        assert config.suppress_tokens == (None if tools is None else (call,))
        answer = generator.chat(MESSAGES, tools, choice, **said)
        assert (answer.content, answer.tool_calls) == ("a", [])


def test_asyncio(generator: EdgeGenerator) -> None:
    expected = generator.chat(MESSAGES, max_new_tokens=7).content

    async def run() -> None:
        assert (await generator.achat(MESSAGES, max_new_tokens=7)).content == expected
        stream = generator.achat_stream(MESSAGES, max_new_tokens=7)
        assert "".join([delta.content async for delta in stream]) == expected
        assert stream.result is not None and stream.result.content == expected
        async with generator.achat_stream(MESSAGES, max_new_tokens=200) as early:
            first = await anext(early)
        assert early.result is not None
        assert early.result.content.startswith(first.content)
        assert early.result.finish_reason == "cancelled"

    asyncio.run(run())


def test_a_stream_may_be_closed_early(generator: EdgeGenerator) -> None:
    with generator.chat_stream(MESSAGES, max_new_tokens=200) as stream:
        shown = "".join(next(stream).content for _ in range(3))
    assert stream.result is not None
    assert stream.result.content.startswith(shown)
    assert (stream.result.finish_reason, stream.result.result) == ("cancelled", None)
    assert list(stream) == []


def test_messages_that_were_left_out_are_told(generator: EdgeGenerator) -> None:
    turn = [{"role": "user", "content": "ilé " * 20}, {"role": "assistant", "content": "ọjọ́"}]
    answer = generator.chat([*turn * 50, *MESSAGES[1:]], max_new_tokens=30)
    assert answer.left_out_messages > 0
    assert answer.result is not None
    assert answer.result.prompt_lengths[0] <= generator.max_length - 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"messages": "hi"}, "messages is a str"),
        ({"messages": MESSAGES, "tools": "x"}, "tools is a str"),
        ({"messages": MESSAGES, "tool_choice": "required"}, "there are no tools"),
        ({"messages": MESSAGES, "do_sample": True, "num_return_sequences": 2}, "a chat has one answer"),
        ({"messages": MESSAGES, "max_tokens": 2}, "unknown option max_tokens"),
        ({"messages": MESSAGES, "max_new_tokens": 2044}, "messages 1 to 1 make a prompt of .* needs 2044"),
    ],
)
def test_what_is_refused(generator: EdgeGenerator, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        generator.chat(**arguments)


def test_a_model_without_a_template(text_model: Path) -> None:
    with EdgeGenerator.from_pretrained(text_model) as generator:
        for call in (generator.chat, generator.chat_stream, generator.chat_session):
            with pytest.raises(
                InvalidInputError, match=f"the model {text_model.name} has none: neither chat_temp"
            ):
                call(MESSAGES)
