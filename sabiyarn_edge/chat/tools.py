"""Tools that a model may call: OpenAI's form in, and the check of a call's arguments."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInputError, shown
from .schema import ArgumentSchema

__all__ = ["Tool", "ToolChoice", "read_tool_choice", "read_tools", "tools_in_words"]

INTRODUCTION = "You can call the following tools:"
"""The sentence before the tools, where the template has no place for them."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""OpenAI's rule."""

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
"""The schema of a tool that gives none."""


@dataclass(frozen=True)
class Tool:
    """A function that the model may ask for."""

    name: str
    definition: dict[str, Any]
    """In OpenAI's form: {"type": "function", "function": {"name", "description", "parameters"}}."""

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of its arguments."""
        return {"type": "object", **self.definition["function"].get("parameters", NO_PARAMETERS)}

    def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """What is wrong with a call's arguments, by the schema; None if they are valid."""
        return self.checked_schema.problem(arguments)

    @functools.cached_property
    def checked_schema(self) -> ArgumentSchema:
        """What checks arguments. Raises: InvalidInputError, as ArgumentSchema."""
        return ArgumentSchema(self.schema, f"the schema of the tool {self.name}")


@dataclass(frozen=True)
class ToolChoice:
    """Whether the model may, must or must not call a tool."""

    mode: str
    """"none", "auto" or "required"."""
    name: str | None = None
    """With "required": the only tool that may be called; None: any."""


def read_tools(given: Any) -> tuple[Tool, ...]:
    """Check tools.

    Args:
        given: a list in OpenAI's form, or None.

    Raises:
        InvalidInputError: names the tool and what is wrong with it; or jsonschema is not installed.
    """
    if given is None:
        return ()
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise InvalidInputError(f"tools is a {type(given).__name__}; it must be a list.")
    tools: dict[str, Tool] = {}
    for index, item in enumerate(given):
        tool = item if isinstance(item, Tool) else _read(item, f"tools[{index}]")
        if tool.name in tools:
            raise InvalidInputError(f"tools[{index}] is a second tool with the name {tool.name}.")
        tools[tool.name] = tool
        _ = tool.checked_schema  # refuse it now
    return tuple(tools.values())


def _read(given: Any, where: str) -> Tool:
    function = given.get("function") if isinstance(given, Mapping) else None
    if not isinstance(function, Mapping) or given.get("type", "function") != "function":
        raise InvalidInputError(
            f'{where} must be like {{"type": "function", "function": {{"name": ..., "description": ..., "parameters": '
            "...}}."
        )
    name = function.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidInputError(
            f"{where}.function.name is {shown(name)}; it must be 1 to 64 of the letters a-z, A-Z, digits, _ and -."
        )
    read: dict[str, Any] = {"name": name}
    for key, value in function.items():
        if key == "description" and isinstance(value, str):
            read[key] = value
        elif key == "parameters" and isinstance(value, Mapping):
            read[key] = _object_schema(value, f"{where}.function.parameters")
        elif key in ("description", "parameters") and value is not None:
            kind = "a text" if key == "description" else "a JSON schema of an object"
            raise InvalidInputError(f"{where}.function.{key} is a {type(value).__name__}; it must be {kind}.")
        elif key not in ("name", "description", "parameters", "strict"):
            raise InvalidInputError(f"{where}.function.{key} is not supported. Leave it out.")
    return Tool(name, {"type": "function", "function": read})


def _object_schema(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        schema: dict[str, Any] = json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{where} is not JSON: {error}.") from None
    if schema and schema.get("type", "object") != "object":
        raise InvalidInputError(f'{where}.type is {shown(schema["type"])}; arguments are an "object".')
    return schema


def read_tool_choice(given: Any, tools: Sequence[Tool]) -> ToolChoice:
    """Check a tool_choice.

    Args:
        given: None or "auto": the model decides; "none": it calls nothing; "required": it calls a tool; a tool's name,
            or {"type": "function", "function": {"name": ...}}: it calls this one.
        tools: that there are.

    Raises:
        InvalidInputError: it is something else, or there is no such tool.
    """
    if given is not None and not isinstance(given, str | Mapping):
        raise InvalidInputError(
            f'tool_choice is {shown(given)}; it must be "none", "auto", "required" or the name of a tool: '
            f"{', '.join(tool.name for tool in tools)}."
        )
    if given is None or given == "auto":
        return ToolChoice("auto" if tools else "none")
    if given == "none":
        return ToolChoice("none")
    name: Any = given
    if isinstance(given, Mapping):
        function = given.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
    names = [tool.name for tool in tools]
    if given == "required" and names:
        return ToolChoice("required")
    if isinstance(name, str) and name in names:
        return ToolChoice("required", name)
    if not names:
        raise InvalidInputError(f"tool_choice is {shown(given)}, but there are no tools. Give tools.")
    raise InvalidInputError(
        f'tool_choice is {shown(given)}; it must be "none", "auto", "required" or the name of a tool: '
        f"{', '.join(names)}."
    )


def tools_in_words(tools: Sequence[Mapping[str, Any]]) -> str:
    """What stands in the system message where the template has no place for tools."""
    return f"{INTRODUCTION}\n{json.dumps(list(tools), indent=2, ensure_ascii=False)}"
