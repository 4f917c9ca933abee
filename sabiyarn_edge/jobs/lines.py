"""What a line of an input asks for: plain text, JSON of our own, or OpenAI's batch format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ..errors import InvalidInputError, shown
from ..options.generation_config import GenerationConfig
from ..system.json_text import json_kind, parse_json
from .endings import has_ending, is_packed

__all__ = ["FORMATS", "Format", "Id", "Request", "format_of", "read_line"]

Format: TypeAlias = Literal["lines", "jsonl"]
FORMATS: tuple[Format, ...] = ("lines", "jsonl")
Id: TypeAlias = str | int

_JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
PROMPT = "prompt"
_OWN_KEYS = ("id", "options", "labels")
_OPENAI_KEYS = ("custom_id", "body")
_EACH_LINE = "Each line must be one object or string, without an array around them."


@dataclass(frozen=True)
class Request:
    """One line, read."""

    id: Id
    """The line's own, or its number."""
    has_id: bool
    slots: Mapping[str, Any] = field(default_factory=dict)
    """What fills the task's template; without a task: "prompt"."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of GenerationConfig, for this line."""
    openai: Mapping[str, Any] | None = None
    """A line of OpenAI's batch format."""


def format_of(name: str) -> Format:
    """The format of a file, by its ending; .gz is looked through."""
    name = name[: -len(".gz")] if is_packed(name) else name
    return "jsonl" if has_ending(name, *_JSON_ENDINGS) else "lines"


def decoded(content: bytes, number: int) -> str:
    """A line as text.

    Raises:
        InvalidInputError: it is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"line {number} is not UTF-8: byte {error.start} is {content[error.start]:#04x}. Convert the file to UTF-8."
        ) from None


def read_line(text: str, number: int, given: Format, main: str) -> Request:
    """Read one line.

    Args:
        number: of the line, from 1.
        main: slot that a plain text fills.

    Raises:
        LineError: it cannot be read; carries the id, if that much could be.
    """
    if given == "lines":
        return Request(number, False, {main: text})
    try:
        content = parse_json(text)
    except ValueError as error:
        raise LineError(f"line {number} is not JSON: {error}. {_EACH_LINE}") from None
    if isinstance(content, str):
        return Request(number, False, {main: content})
    if not isinstance(content, dict):
        raise LineError(f"line {number} is {json_kind(content)}. {_EACH_LINE}")
    if all(key in content for key in _OPENAI_KEYS):
        return Request(_id(content["custom_id"], "custom_id", number), True, openai=content)
    has_id = content.get("id") is not None
    name = _id(content["id"], "id", number) if has_id else number
    options = content.get("options", {})
    if not isinstance(options, dict):
        raise LineError(f"options is {json_kind(options)}; it must be an object.", name)
    for key in content:
        if key in GenerationConfig.__dataclass_fields__:
            raise LineError(f'{key} is an option: put it into "options": {{"{key}": ...}}.', name)
    slots = {key: value for key, value in content.items() if key not in _OWN_KEYS}
    return Request(name, has_id, slots, options)


class LineError(InvalidInputError):
    """A line that cannot be read.

    Args:
        id: of the line; None: not even that could be read.
    """

    def __init__(self, message: str, id: Id | None = None) -> None:
        super().__init__(message)
        self.id = id


def _id(value: Any, key: str, number: int) -> Id:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise LineError(f"{key} of line {number} is {shown(value)}; it must be a string or an integer.")
