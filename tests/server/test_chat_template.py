"""ChatTemplate against transformers' own rendering."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge.errors import InvalidInputError, ModelFolderError
from sabiyarn_edge.server.chat_template import ChatTemplate

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Ẹ káàárọ̀ <b> & 'x'"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]

TEMPLATES = {
    "loop": "{% for m in messages %}\n  <{{ m.role }}>{{ m['content'] | trim }}\n{% endfor %}\n"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
    "tojson": "{{ messages | tojson }} {{ messages[0] | tojson(indent=2) }}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "loop-controls": "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{{ m.content }}"
    "{% if loop.index0 == 2 %}{% break %}{% endif %}{% endfor %}",
    "tokens": "{{ bos_token }}{{ messages[-1].content }}{{ eos_token }}{{ missing }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "time": "{{ strftime_now('%Y') }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_are_those_of_transformers(name: str) -> None:
    pytest.importorskip("jinja2")
    render = pytest.importorskip("transformers.utils.chat_template_utils").render_jinja_template
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    [expected], _ = render([MESSAGES], chat_template=TEMPLATES[name], add_generation_prompt=True, **tokens)
    assert ChatTemplate(TEMPLATES[name], tokens).render(MESSAGES) == expected


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


def test_where_it_is_found(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    assert ChatTemplate.find(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"bos_token": "<s>", "chat_template": "config{{ bos_token }}"}')
    assert ChatTemplate.find(tmp_path).render(MESSAGES) == "config<s>"
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "default"}]
    config.write_text(json.dumps({"bos_token": {"content": "<s>"}, "chat_template": several}))
    assert ChatTemplate.find(tmp_path).render(MESSAGES) == "default"
    (tmp_path / "chat_template.jinja").write_text("file{{ bos_token }}")
    assert ChatTemplate.find(tmp_path).render(MESSAGES) == "file<s>"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelFolderError, match=r"chat_template\.jinja cannot be read"):
        ChatTemplate.find(tmp_path)
    config.write_text("{")
    with pytest.raises(ModelFolderError):
        ChatTemplate.find(tmp_path)


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("jinja2", "jinja2.sandbox"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidInputError, match="pip install jinja2"):
        ChatTemplate("a", {}).render(MESSAGES)
