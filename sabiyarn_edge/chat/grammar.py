"""The grammar of an answer that must call a tool, in llguidance's dialect of Lark.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..options.checks import json_schema
from ..text.tokenizer import Tokenizer
from .calls import CALL, PLAN, REASON
from .tools import Tool

__all__ = ["call_grammar"]

_SEPARATORS = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
"""As Python's json writes it, and so templates."""


def call_grammar(tools: Sequence[Tool], tokenizer: Tokenizer) -> str:
    """Return the grammar of one call of any of the tools, its arguments by the tool's schema.

    Reasoning and a plan may stand before it, if the vocabulary has their tags: else nothing would end them.

    Args:
        tools: at least one.
        tokenizer: tells which tags are tokens of their own.

    Raises:
        InvalidInputError: a tool's schema holds what a constraint cannot follow.
    """

    def written(text: str) -> str:
        token = tokenizer.token_to_id(text)
        return f"<[{token}]>" if token in tokenizer.parts.control_ids else json.dumps(text)

    before, rules = "", []
    for tag in (REASON, PLAN):
        opening, closing = written(tag.opening), written(tag.closing)
        if opening.startswith("<[") and closing.startswith("<["):
            before += f"{tag.name}? "
            rules.append(f"{tag.name}: {opening} TEXT {closing}")
    if rules:
        rules.append(r"TEXT: /[\s\S]*/")
    for index, tool in enumerate(tools):
        json_schema(f"the schema of the tool {tool.name}", tool.schema)
        schema = {**tool.schema, "x-guidance": _SEPARATORS}
        rules.append(f"call_{index}: {json.dumps(tool.name + chr(10))} arguments_{index}")
        rules.append(f"arguments_{index}: %json {json.dumps(schema)}")
    calls = " | ".join(f"call_{index}" for index in range(len(tools)))
    start = f"start: {before}{written(CALL.opening)} ({calls}) {written(CALL.closing)}"
    return "\n".join([start, *rules]) + "\n"
