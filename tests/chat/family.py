"""The family's chat form: its tags, a template in this form, and a tiny model that has both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers

from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.export.models import export_tiny
from tests.tiny_tokenizer import END, tiny_tokenizer

BEGIN = "<s>"
TAGS = (
    *(BEGIN, "<|system|>", "<|user|>", "<|assistant|>", "<yor>"),
    *("<tool_call>", "</tool_call>", "<tool_result>", "</tool_result>"),
    *("<reason>", "</reason>", "<task_plan>", "</task_plan>"),
)

TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role == 'tool' -%}
        {{- '<tool_result>' + message.name + '\\n' + message.content + '</tool_result>' + eos_token -}}
    {%- elif message.tool_calls -%}
        {%- for call in message.tool_calls -%}
            {{- '<|assistant|><tool_call>' + call.function.name + '\\n' -}}
            {{- call.function.arguments -}}
            {{- '</tool_call>' + eos_token -}}
        {%- endfor -%}
    {%- else -%}
        {{- '<|' + message.role + '|>' + message.content + eos_token -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' -}}
{%- endif -%}
"""
CONFIG = {"bos_token": BEGIN, "eos_token": {"content": END}, "additional_special_tokens": list(TAGS[1:])}


def family_tokenizer() -> tokenizers.Tokenizer:
    """Adds a begin token to a text that comes without a template."""
    backend = tiny_tokenizer()
    backend.add_special_tokens(list(TAGS))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, backend.token_to_id(BEGIN))]
    )
    return backend


def family_folder(where: Path) -> Path:
    """Export a tiny model with 2048 positions."""
    tokenizer = family_tokenizer()
    options = {"vocab_size": tokenizer.get_vocab_size(), "block_size": 2048}
    folder = export_tiny(where, options, kv_cache_dtype="float32", verify=False).folder
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    config["eos_token_id"] = tokenizer.token_to_id(END)
    (folder / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def saying(tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """Options of a call whose answer is this text, whatever the model thinks of it."""
    script = tokenizer.encode(text, add_special_tokens=False)
    start: list[int] = []

    def allowed(row: int, ids: Any) -> list[int]:
        start.append(len(ids))
        return [script[min(len(ids) - start[0], len(script) - 1)]]

    return {"prefix_allowed_tokens_fn": allowed, "max_new_tokens": len(script)}
