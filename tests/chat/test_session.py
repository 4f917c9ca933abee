"""Chats that grow: equal to chat() with the same messages, and nothing is computed twice."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from sabiyarn_edge import ChatSession, EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError, SessionFileError
from tests.chat.family import TAGS, saying
from tests.chat.templates import WEATHER
from tests.tiny_tokenizer import END

pytest.importorskip("jsonschema")

SYSTEM = [{"role": "system", "content": "ẹ jọ̀ọ́ " * 8}]


def no_tags(generator: EdgeGenerator) -> dict[str, list[int]]:
    """A random model writes tags, which are no part of an answer's text."""
    assert generator.tokenizer is not None
    return {"suppress_tokens": [generator.tokenizer.token_to_id(tag) for tag in TAGS]}


def test_only_the_new_turn_is_computed(generator: EdgeGenerator) -> None:
    session = generator.chat_session(SYSTEM)
    messages, before = list(SYSTEM), 0
    for turn in ("ọmọ", "ilé ńlá", "ọjọ́ kìíní oṣù kejì"):
        messages.append({"role": "user", "content": turn})
        answer = session.send(turn, max_new_tokens=9, **no_tags(generator))
        assert answer.result is not None
        timings = answer.result.timings
        # All that was there but the newest token, which no step has run yet.
        assert timings.reused_tokens == max(before - 1, 0)
        assert timings.prefill_tokens == answer.result.prompt_lengths[0] - timings.reused_tokens
        before = answer.result.lengths[0]
        assert session.tokens == answer.result.sequences[0].tolist()
        messages.append(answer.message)
        assert session.messages == messages
    assert generator.tokenizer is not None
    text = generator.tokenizer.decode(session.tokens, skip_special_tokens=False)
    assert text.startswith(generator.chat_model.prompt(messages[:-1]).text)


def test_answers_are_those_of_chat(generator: EdgeGenerator) -> None:
    """Where the tokens of the answers are those that encoding them gives."""
    session, messages = generator.chat_session(SYSTEM), list(SYSTEM)
    assert generator.tokenizer is not None
    for turn, reply in (("ọmọ", "ẹ̀kọ́"), ("ilé", "Gbogbo ènìyàn")):
        messages.append({"role": "user", "content": turn})
        session.send(turn, **saying(generator.tokenizer, reply + END))
        messages.append({"role": "assistant", "content": reply})
    assert session.messages == messages
    messages.append({"role": "user", "content": "ọjọ́"})
    expected = generator.chat(messages, max_new_tokens=12)
    assert session.send("ọjọ́", max_new_tokens=12).content == expected.content


def test_turns_with_tools_are_computed_once(generator: EdgeGenerator) -> None:
    session = generator.chat_session(SYSTEM, [WEATHER])
    assert generator.tokenizer is not None
    call = '<reason>a</reason><tool_call>get_weather\n{"city":"Èkó"}</tool_call>'
    asked = session.send("ọjọ́?", **saying(generator.tokenizer, call.replace("<reason>a</reason>", "") + END))
    (made,) = asked.tool_calls
    answer = session.send([{"role": "tool", "tool_call_id": made.id, "content": "31"}], max_new_tokens=5)
    assert asked.result is not None and answer.result is not None
    assert answer.result.timings.reused_tokens == asked.result.lengths[0] - 1
    assert [message["role"] for message in session.messages[1:]] == ["user", "assistant", "tool", "assistant"]


def test_streams(generator: EdgeGenerator) -> None:
    whole, streamed = generator.chat_session(SYSTEM), generator.chat_session(SYSTEM)
    for turn in ("ọmọ", "ilé"):
        expected = whole.send(turn, max_new_tokens=9)
        stream = streamed.stream(turn, max_new_tokens=9)
        assert "".join(delta.content for delta in stream) == expected.content
        assert streamed.messages == whole.messages
        assert streamed.tokens == whole.tokens
    with streamed.stream("ọjọ́", max_new_tokens=99, **no_tags(generator)) as stream:
        for _ in range(3):
            next(stream)
    assert stream.result is not None
    assert streamed.messages[-2:] == [{"role": "user", "content": "ọjọ́"}, stream.result.message]
    later = streamed.send("a", max_new_tokens=2)
    assert later.result is not None
    assert later.result.timings.reused_tokens >= len(whole.tokens)


def test_the_next_turn_closes_an_open_stream(generator: EdgeGenerator) -> None:
    closed, open_ = generator.chat_session(SYSTEM), generator.chat_session(SYSTEM)
    with closed.stream("ọmọ", max_new_tokens=99, **no_tags(generator)) as stream:
        next(stream)
    left = open_.stream("ọmọ", max_new_tokens=99, **no_tags(generator))
    next(left)
    for session in (closed, open_):
        session.send("ilé", max_new_tokens=5)
    assert copy.copy(open_).messages == open_.messages == closed.messages
    assert open_.tokens == closed.tokens
    assert [message["role"] for message in open_.messages[-4:]] == ["user", "assistant"] * 2
    with pytest.raises(InvalidInputError, match="its session went on with another turn"):
        list(left)
    assert open_.messages == closed.messages


def test_a_refused_turn_changes_nothing(generator: EdgeGenerator) -> None:
    session = generator.chat_session(SYSTEM)
    session.send("ọmọ", max_new_tokens=3)
    messages = session.messages
    for wrong in (5, {"role": "user"}, [5], "ilé " * 2500):
        with pytest.raises(InvalidInputError):
            session.send(wrong, max_new_tokens=3)
    for turn in (session.send, session.stream):
        with pytest.raises(InvalidInputError, match=r"Give them to chat_session\(messages, tools=\.\.\.\)"):
            turn("ilé", tool_choice="required", tools=[])
    assert session.messages == messages
    with pytest.raises(InvalidInputError, match="messages is empty"):
        generator.chat_session().send([])
    with pytest.raises(InvalidInputError, match=r"messages\[0\].content is missing"):
        generator.chat_session([{"role": "user"}])


def test_a_long_chat_leaves_messages_out(chat_folder: Path) -> None:
    generator = EdgeGenerator.from_pretrained(chat_folder, num_threads=1, max_length=512)
    session = generator.chat_session(SYSTEM[:1])
    left_out = []
    for turn in range(14):
        answer = session.send(f"{turn} " + "ilé ńlá " * 8, max_new_tokens=20, **no_tags(generator))
        left_out.append(answer.left_out_messages)
        assert answer.result is not None
        assert answer.result.lengths[0] <= generator.max_length
    assert left_out[0] == 0 < left_out[-1]
    assert left_out == sorted(left_out)
    assert len(set(left_out)) < 5  # several at once, so that most turns compute only what is new
    assert len(session.messages) == 1 + 2 * 14
    assert session.left_out_messages == left_out[-1]
    assert generator.tokenizer is not None
    text = generator.tokenizer.decode(session.tokens, skip_special_tokens=False)
    first = 1 + left_out[-1]
    assert text.startswith(
        f"<s><|system|>{SYSTEM[0]['content']}{END}<|user|>{session.messages[first]['content']}"
    )


def test_saved_and_loaded(generator: EdgeGenerator, chat_folder: Path, tmp_path: Path) -> None:
    session = generator.chat_session(SYSTEM, [WEATHER])
    session.send("ọmọ", max_new_tokens=9, **no_tags(generator))
    session.save(tmp_path / "chat")
    expected = session.send("ilé", max_new_tokens=5)
    with EdgeGenerator.from_pretrained(chat_folder, num_threads=1) as other:
        loaded = other.load_chat(tmp_path / "chat")
        assert isinstance(loaded, ChatSession)
        answer = loaded.send("ilé", max_new_tokens=5)
        assert answer.content == expected.content
        assert answer.result is not None and expected.result is not None
        assert answer.result.timings.reused_tokens == expected.result.timings.reused_tokens
        assert loaded.messages == session.messages
        text = other.session("ọmọ")
        text.save(tmp_path / "text")
        with pytest.raises(
            SessionFileError, match=r"text holds no chat, but a text. Open it with load_session"
        ):
            other.load_chat(tmp_path / "text")
        with pytest.raises(SessionFileError, match=r"chat holds a chat. Open it with load_chat"):
            other.load_session(tmp_path / "chat")
        for attachment in ("[" * 100_000, '{"chat": {"first": Infinity}}', '{"chat": 3}'):
            text.save(tmp_path / "text", attachment=attachment)
            with pytest.raises(SessionFileError, match="text holds no chat"):
                other.load_chat(tmp_path / "text")
            assert other.load_session(tmp_path / "text").attachment == attachment
        text.save(tmp_path / "text", attachment='{"chat": {"messages": [], "first": "x"}}')
        with pytest.raises(SessionFileError, match="text holds a damaged chat"):
            other.load_chat(tmp_path / "text")
    with pytest.raises(SessionFileError):
        generator.load_chat(tmp_path / "missing")
