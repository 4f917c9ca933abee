"""Calls of tools in the model's form: <tool_call>, a tool's name, a line break, its arguments as JSON, </tool_call>."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import shown
from .messages import parsed_arguments
from .tools import Tool

__all__ = ["CALL", "PLAN", "REASON", "RESULT", "InvalidCall", "Tag", "ToolCall", "read_call", "written_call"]


@dataclass(frozen=True)
class Tag:
    """A name in angle brackets that begins or ends a section of an answer."""

    name: str

    @property
    def opening(self) -> str:
        """What begins the section."""
        return f"<{self.name}>"

    @property
    def closing(self) -> str:
        """What ends it."""
        return f"</{self.name}>"

    def around(self, text: str) -> str:
        """The section."""
        return f"{self.opening}{text}{self.closing}"


REASON, PLAN, CALL, RESULT = (Tag(name) for name in ("reason", "task_plan", "tool_call", "tool_result"))


@dataclass(frozen=True)
class ToolCall:
    """A valid call: there is such a tool, and the arguments obey its schema."""

    name: str
    arguments: dict[str, Any]
    written_arguments: str
    """Their JSON, as the model wrote it."""
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")
    """A new one for each call; the tool's message refers to it."""

    def to_dict(self) -> dict[str, Any]:
        """In OpenAI's form."""
        function = {"name": self.name, "arguments": self.written_arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True)
class InvalidCall:
    """What the model wrote as a call, and is none."""

    text: str
    """As the model wrote it, with its tags."""
    problem: str
    """Why it is none."""

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"text": self.text, "problem": self.problem}


def written_call(name: str, arguments: str) -> str:
    """A call as the model writes it.

    Args:
        arguments: JSON.
    """
    return CALL.around(f"{name}\n{arguments}")


def read_call(text: str, tools: Mapping[str, Tool]) -> ToolCall | InvalidCall:
    """Read what stands between <tool_call> and </tool_call>.

    Args:
        tools: by their names.
    """
    name, _, rest = text.strip().partition("\n")
    name, written = name.strip(), rest.strip()

    def invalid(problem: str) -> InvalidCall:
        return InvalidCall(CALL.around(text), problem)

    if name not in tools:
        return invalid(f"there is no tool {shown(name)}; the tools are {_names(list(tools))}")
    try:
        arguments = parsed_arguments(written)
    except ValueError as error:
        return invalid(f"the arguments of {name} are no JSON object: {error}")
    problem = tools[name].problem(arguments)
    if problem is not None:
        return invalid(f"the arguments of {name} do not obey its schema: {problem}")
    return ToolCall(name, arguments, written)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
