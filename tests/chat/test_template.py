"""ChatTemplate against transformers' own rendering."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge.chat import template
from sabiyarn_edge.chat.template import ChatTemplate
from sabiyarn_edge.errors import InvalidInputError, ModelFolderError, OutOfMemoryError
from tests.chat.templates import CALLING, PLAIN, TEMPLATES, TOOL_TEMPLATES, WEATHER

MESSAGES = PLAIN
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "additional_special_tokens": ["<x>"]}


def of_transformers(source: str, messages: Any, tools: Any = None) -> str:
    pytest.importorskip("jinja2")
    render = pytest.importorskip("transformers.utils.chat_template_utils").render_jinja_template
    [text], _ = render([messages], chat_template=source, tools=tools, add_generation_prompt=True, **TOKENS)
    return text


@pytest.mark.parametrize("name", [*TEMPLATES, *TOOL_TEMPLATES])
def test_texts_are_those_of_transformers(name: str) -> None:
    source = {**TEMPLATES, **TOOL_TEMPLATES}[name]
    for messages in (PLAIN, PLAIN[1:], PLAIN[:2]):
        assert ChatTemplate(source, TOKENS).render(messages) == of_transformers(source, messages)


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
def test_texts_with_tools_are_those_of_transformers(name: str) -> None:
    source = TOOL_TEMPLATES[name]
    for tools in (None, [WEATHER], [WEATHER, WEATHER]):
        expected = of_transformers(source, CALLING, tools)
        assert ChatTemplate(source, TOKENS).render(CALLING, tools) == expected
        assert ChatTemplate("no tools", TOKENS, with_tools=source).render(CALLING, tools) == (
            expected if tools else "no tools"
        )


def test_which_templates_take_tools() -> None:
    pytest.importorskip("jinja2")
    taking = [
        name
        for name, source in {**TEMPLATES, **TOOL_TEMPLATES}.items()
        if ChatTemplate(source, {}).takes_tools
    ]
    assert taking == ["documents", *TOOL_TEMPLATES]
    assert not ChatTemplate("{% set tools = 1 %}{{ messages[0].tools }}", {}).takes_tools


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{% if %}", "damaged"),
        ("{{ messages[0].content.nothing.more }}", "cannot be used"),
    ],
)
def test_what_a_template_may_not_do(source: str, message: str) -> None:
    pytest.importorskip("jinja2")
    with pytest.raises(InvalidInputError, match=message):
        ChatTemplate(source, {}).render(MESSAGES)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for i in range(60000) %}{{ 'x' * 1000 }}{% endfor %}", "more than 16777216 characters"),
        ('{{ "a\\ud800" }}', "half a surrogate pair"),
        ("{{ lipsum(n=100000000) }}", "'lipsum' is undefined"),
        ("{% if messages %}{% endif %}", "makes no text of these messages"),
    ],
    ids=["too much", "no text of Unicode", "filler", "nothing"],
)
def test_what_may_not_come_of_messages(source: str, message: str) -> None:
    pytest.importorskip("jinja2")
    with pytest.raises(InvalidInputError, match=message):
        ChatTemplate(source, TOKENS).render(MESSAGES)


def test_empty_messages_are_named() -> None:
    pytest.importorskip("jinja2")
    with pytest.raises(InvalidInputError, match="messages hold no text"):
        ChatTemplate("{{ messages[-1].content }}", TOKENS).render([{"role": "user", "content": ""}])


def test_memory_that_ends_while_a_text_is_made() -> None:
    pytest.importorskip("jinja2")
    made = ChatTemplate("{{ 'x' * messages[0].content }}", TOKENS)
    with pytest.raises(OutOfMemoryError, match="the model's chat template makes"):
        made.render([{"role": "user", "content": 2**62}])


def test_where_it_is_found(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    assert ChatTemplate.find(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"bos_token": "<s>", "chat_template": "config{{ bos_token }}"}')
    assert ChatTemplate.find(tmp_path).render(MESSAGES) == "config<s>"
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "default"}]
    config.write_text(json.dumps({"bos_token": {"content": "<s>"}, "chat_template": several}))
    assert ChatTemplate.find(tmp_path).render(MESSAGES) == "default"
    assert ChatTemplate.find(tmp_path).render(MESSAGES, [WEATHER]) == "tools"
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "</s>", "bos_token": "other"}')
    (tmp_path / "chat_template.jinja").write_text("{{ eos_token }}")
    assert ChatTemplate.find(tmp_path).render(MESSAGES) == "</s>"
    (tmp_path / "chat_template.jinja").write_text("file{{ bos_token }}")
    assert ChatTemplate.find(tmp_path).render(MESSAGES) == "file<s>"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelFolderError, match=r"chat_template\.jinja cannot be read"):
        ChatTemplate.find(tmp_path)
    config.write_text("{")
    with pytest.raises(ModelFolderError):
        ChatTemplate.find(tmp_path)


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "_sandbox", template._sandbox.__wrapped__)  # else it may be there already
    for name in ("jinja2", "jinja2.sandbox"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidInputError, match=r'pip install "\.\[chat\]"'):
        ChatTemplate("a", {}).render(MESSAGES)
