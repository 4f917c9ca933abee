"""Messages in OpenAI's form, checked once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInputError, shown
from ..system.json_text import parse_json
from ..text.characters import check_characters

__all__ = ["Arguments", "Message", "parsed_arguments", "read_messages"]

Message = dict[str, Any]
"""Checked: "role" and "content", both texts, and where they are given "name", "reasoning", "task_plan", "tool_call_id",
and "tool_calls" with Arguments."""

_OTHER_NAMES = {"reasoning_content": "reasoning"}
_TEXTS = ("name", "reasoning", "task_plan", "tool_call_id")
_ROLES = {"developer": "system"}
"""OpenAI's name for it with newer models."""


class Arguments(dict[str, Any]):
    """A call's arguments. A template that writes them as they are writes their JSON.

    Args:
        values: by name.
        written: their JSON, as the model wrote it.
    """

    def __init__(self, values: Mapping[str, Any], written: str) -> None:
        super().__init__(values)
        self.written = written

    def __str__(self) -> str:
        return self.written


def read_messages(given: Any) -> list[Message]:
    """Check messages and bring them into one form.

    Args:
        given: a list of mappings with "role" and "content": a text, or a list of {"type": "text", "text": ...}.
            An assistant's may have "tool_calls", and then no content; a tool's has the "tool_call_id" of a call
            before it, or a "name".

    Raises:
        InvalidInputError: names the message and what is wrong with it.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Sequence):
        raise InvalidInputError(
            f'messages is a {type(given).__name__}; it must be a list like [{{"role": "user", "content": "..."}}].'
        )
    if not given:
        raise InvalidInputError("messages is empty. Give at least one message.")
    called: dict[str, str] = {}  # id of a call -> the tool's name
    return [_read(message, f"messages[{index}]", called) for index, message in enumerate(given)]


def _read(given: Any, where: str, called: dict[str, str]) -> Message:
    if not isinstance(given, Mapping):
        raise InvalidInputError(
            f'{where} is a {type(given).__name__}; it must be a mapping with "role" and "content".'
        )
    fields: Message = {}
    for name, value in given.items():
        name = _OTHER_NAMES.get(name, name)
        if name in ("role", "content", "tool_calls", *_TEXTS):
            fields[name] = value
        elif value:  # clients send back what the server gave, empty fields included
            raise InvalidInputError(f"{where} has the field {name}, which is not supported. Leave it out.")
    role = fields.get("role")
    if not isinstance(role, str) or not role:
        raise InvalidInputError(
            f'{where}.role is {shown(role)}; it must be a text: "system", "user", "assistant" or "tool".'
        )
    message: Message = {"role": _ROLES.get(role, role)}
    calls = fields.get("tool_calls") or ()
    message["content"] = _content(fields.get("content"), where, may_lack=bool(calls) or role == "assistant")
    for name in _TEXTS:
        if fields.get(name) is not None:
            message[name] = _text(fields[name], f"{where}.{name}")
    if calls:
        if role != "assistant":
            raise InvalidInputError(f"{where} has tool_calls, but its role is {role}; it must be assistant.")
        message["tool_calls"] = _calls(calls, f"{where}.tool_calls", called)
    if role == "tool" and "name" not in message:
        message["name"] = _name_of_result(message, where, called)
    return message


def _content(value: Any, where: str, *, may_lack: bool) -> str:
    if value is None and may_lack:
        return ""
    if isinstance(value, str):
        return _text(value, f"{where}.content")
    if not isinstance(value, Sequence):
        what = "missing" if value is None else f"a {type(value).__name__}"
        raise InvalidInputError(f"{where}.content is {what}; it must be a text, or a list of text parts.")
    texts = []
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping) or kind != "text":
            raise InvalidInputError(
                f"{where}.content[{index}] is of type {shown(kind)}; only text parts are read: "
                '{"type": "text", "text": "..."}.'
            )
        texts.append(_text(part.get("text"), f"{where}.content[{index}].text"))
    return "".join(texts)


def _calls(given: Any, where: str, called: dict[str, str]) -> list[dict[str, Any]]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise InvalidInputError(f"{where} is a {type(given).__name__}; it must be a list.")
    calls = []
    for index, call in enumerate(given):
        at = f"{where}[{index}]"
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise InvalidInputError(
                f'{at} must be like {{"id": "...", "type": "function", "function": {{"name": "...", "arguments": '
                '"{...}"}}.'
            )
        name = _text(function.get("name"), f"{at}.function.name")
        read = {"type": "function", "function": {"name": name, "arguments": _arguments(function, at)}}
        if call.get("id") is not None:
            read = {"id": _text(call["id"], f"{at}.id"), **read}
            called[call["id"]] = name
        calls.append(read)
    return calls


def _arguments(function: Mapping[str, Any], at: str) -> Arguments:
    given = function.get("arguments")
    if isinstance(given, Arguments):
        return given
    if isinstance(given, Mapping):
        return Arguments(given, json.dumps(given, ensure_ascii=False))
    written = _text(given, f"{at}.function.arguments")
    try:
        return Arguments(parsed_arguments(written), written)
    except ValueError as error:
        raise InvalidInputError(
            f"{at}.function.arguments is no JSON object ({error}). Give the arguments as the call has them."
        ) from None


def parsed_arguments(written: str) -> dict[str, Any]:
    """The object that a JSON text is.

    Raises:
        ValueError: it is none, and why.
    """
    value = parse_json(written, parse_constant=_refuse_constant)
    if not isinstance(value, dict):
        raise ValueError(f"it is a {type(value).__name__}, not an object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _name_of_result(message: Message, where: str, called: Mapping[str, str]) -> str:
    call_id = message.get("tool_call_id")
    if call_id is None:
        raise InvalidInputError(f"{where} has the role tool: give the tool_call_id of the call, or a name.")
    if call_id not in called:
        known = ", ".join(called) or "there are none"
        raise InvalidInputError(
            f"{where}.tool_call_id is {shown(call_id)}, but no message before it has such a call ({known})."
        )
    return called[call_id]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        what = "missing" if value is None else f"a {type(value).__name__}"
        raise InvalidInputError(f"{where} is {what}; it must be a text.")
    try:
        check_characters(value)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}") from None
    return value
