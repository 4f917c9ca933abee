"""/v1/chat/completions, with a model that has a chat template and with one that has none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.server.logprobs import shown
from tests.server.conftest import Server, running

TEMPLATE = """\
{% for message in messages %}
[{{ message.role }}{% if message.name %}:{{ message.name }}{% endif %}]{{ message.content }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}[assistant]{% endif %}
"""
MESSAGES: list[Any] = [
    {"role": "system", "content": "ẹ jọ̀ọ́"},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "me"},
]
TEXT = "[system]ẹ jọ̀ọ́|e|\n[user:me]ab|e|\n[assistant]"
"""By hand: what the template makes of the messages."""


@pytest.fixture(scope="module")
def chat_server(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("jinja2")
    folder = Path(shutil.copytree(text_model, tmp_path_factory.mktemp("chat") / "chatty"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "|e|"}}), encoding="utf-8"
    )
    server = Server(*("--port", "0", "--threads", "1"), "--model", folder, "--model", f"plain={text_model}")
    with running(server):
        yield server


@pytest.fixture(scope="module")
def ids(generator: EdgeGenerator) -> list[int]:
    assert generator.tokenizer is not None
    return generator.tokenizer.encode(TEXT, add_special_tokens=False)


def test_answers(chat_server: Server, generator: EdgeGenerator, ids: list[int]) -> None:
    result = generator.generate(ids, max_new_tokens=9, do_sample=True, num_return_sequences=2, seed=5)
    answer = chat_server.client().chat.completions.create(
        model="chatty", messages=MESSAGES, max_completion_tokens=9, temperature=1, n=2, seed=5
    )
    assert answer.object == "chat.completion"
    assert [choice.message.content for choice in answer.choices] == result.texts
    assert {choice.message.role for choice in answer.choices} == {"assistant"}
    assert answer.usage is not None and answer.usage.prompt_tokens == len(ids)


def test_streams(chat_server: Server, generator: EdgeGenerator, ids: list[int]) -> None:
    result = generator.generate(ids, max_new_tokens=9)
    deltas = [
        chunk.choices[0]
        for chunk in chat_server.client().chat.completions.create(
            model="chatty", messages=MESSAGES, max_tokens=9, stream=True
        )
    ]
    assert deltas[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in deltas) == result.text
    assert [choice.finish_reason for choice in deltas] == [None] * (len(deltas) - 1) + ["length"]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(chat_server: Server, generator: EdgeGenerator, ids: list[int], stream: bool) -> None:
    result = generator.generate(ids, max_new_tokens=5)
    answer = chat_server.client().chat.completions.create(
        **{"model": "chatty", "messages": MESSAGES, "max_tokens": 5, "stream": stream},
        **{"logprobs": True, "top_logprobs": 2},
    )
    parts = [chunk.choices[0].logprobs for chunk in (answer if stream else [answer])]
    content = [token for part in parts if part is not None for token in part.content]
    assert generator.tokenizer is not None
    texts = [shown(token, generator.tokenizer) for token in result.generated[0]]
    assert [(token.token, bytes(token.bytes)) for token in content] == texts
    for token in content:  # greedy: the chosen one is the likeliest
        assert [token.token, token.logprob] == [token.top_logprobs[0].token, token.top_logprobs[0].logprob]
        assert token.top_logprobs[1].logprob <= token.logprob < 0


def test_a_model_without_a_template_refuses(chat_server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match=r"the model \S+ has none: neither chat_template"):
        chat_server.client().chat.completions.create(model="plain", messages=MESSAGES)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "messages is missing"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "secret"}, "messages is a str; it must be a list"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is missing"),
        ({"messages": [{"role": 1, "content": "a"}]}, r"messages\[0\].role is 1"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            r"messages\[0\].content\[0\] is of type 'image_url'",
        ),
        ({"messages": [{"role": "user", "content": "a", "audio": {"id": 1}}]}, "has the field audio"),
        ({"messages": MESSAGES, "prompt": "a"}, "prompt is not supported here"),
        ({"messages": MESSAGES, "echo": True}, "echo is not supported here"),
        ({"messages": MESSAGES, "logprobs": 3}, "logprobs is 3: expected `bool"),
        ({"messages": MESSAGES, "top_logprobs": 3}, "top_logprobs is 3 but logprobs is not true"),
        (
            {"messages": MESSAGES, "logprobs": True, "top_logprobs": 21},
            "top_logprobs is 21: expected `int` <= 20",
        ),
        ({"messages": MESSAGES, "max_tokens": 3, "max_completion_tokens": 4}, "which mean the same"),
        (
            {"messages": MESSAGES, "response_format": {"type": "xml"}},
            "response_format.type: invalid value 'xml'",
        ),
        ({"messages": MESSAGES, "tools": [{"type": "function"}]}, r"tools\[0\] must be like"),
        (
            {"messages": MESSAGES, "tool_choice": "required"},
            "tool_choice is 'required', but there are no tools",
        ),
    ],
)
def test_bad_requests(chat_server: Server, body: dict[str, Any], message: str) -> None:
    answer = chat_server.post("/v1/chat/completions", json={"model": "chatty", **body})
    assert answer.status_code == 400
    assert re.search(message, answer.json()["error"]["message"]), answer.text
    assert "secret" not in chat_server.log
