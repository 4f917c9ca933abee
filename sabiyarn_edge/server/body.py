"""Reads a request's JSON body, of bounded size and in bounded time, into the fields that an endpoint takes."""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from .errors import HttpError

__all__ = ["MAX_BODY_BYTES", "check_texts", "read_fields", "read_object", "to_fields"]

MAX_BODY_BYTES = 2**20
"""Longer than any prompt that fits a model here, and room for the texts of an embeddings request."""
DISCARDED_BYTES = 16 * MAX_BODY_BYTES
"""So much of a body that does not say its length is read before it is refused: most clients listen only when they have
sent all."""
BODY_SECONDS = 30.0
"""A client that sends its body more slowly is sent away."""
MAX_TEXTS = 2048
"""Of a request, as OpenAI's embeddings take: an answer of many more keeps the event loop from all others."""
SHOWN_CHARACTERS = 60
UNSHOWN = ("prompt", "messages", "input")
"""Fields whose text is in no message: messages stand in the log."""

_MISSING = re.compile(r"missing required field `(\w+)`")
_AT = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)

_SURROGATES = re.compile(
    rb"(?<!\\)(?:\\\\)*(?:\\u[dD][89abAB]..(?:\\u[dD][c-fC-F]..)|(\\u[dD][89a-fA-F][0-9a-fA-F]{2}))",
    re.DOTALL,
)
"""Escapes of a pair of surrogates, or in the group of one that stands alone."""
_JSON_NAMES = {
    list: "array",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    type(None): "null",
}

Fields = TypeVar("Fields")

_CLOSE = {"Connection": "close"}  # the rest of the body is not read


async def read_object(request: Request) -> dict[str, Any]:
    """The body, a JSON object.

    Raises:
        HttpError: it is too long or too slow, of another type, malformed, or no object.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # else any web page could post here, as a form
        raise HttpError(
            415, f"the content type is {kind or 'missing'}; send JSON with Content-Type: application/json."
        )
    body = await _read(request)
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        half = next((found[1].decode() for found in _SURROGATES.finditer(body) if found[1]), None)
        what = f"it holds {half}, half of a surrogate pair, which is no character" if half else error
        raise HttpError(400, f"the body is not JSON that can be read: {what}.") from None
    if not isinstance(content, dict):
        raise HttpError(400, f"the body is a JSON {_JSON_NAMES[type(content)]}; it must be an object.")
    return content


async def _read(request: Request) -> bytes:
    body, length = bytearray(), 0
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 15 or int(declared) > MAX_BODY_BYTES):
        # The connection stays open and what comes is dropped: most clients listen only when they have sent all.
        raise HttpError(413, f"the body has {declared} bytes; at most {MAX_BODY_BYTES} are taken. Send less.")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                length += len(chunk)
                if length <= MAX_BODY_BYTES:
                    body += chunk
                elif length > DISCARDED_BYTES:
                    break
    except TimeoutError:
        raise HttpError(
            408, f"the body did not arrive within {BODY_SECONDS:g} seconds.", headers=_CLOSE
        ) from None
    if length > MAX_BODY_BYTES:
        raise HttpError(
            413,
            f"the body is larger than the {MAX_BODY_BYTES} bytes that are taken. Send less.",
            headers=_CLOSE,
        )
    return bytes(body)


async def read_fields(request: Request, kind: type[Fields]) -> Fields:
    """The body as a struct that has all its fields.

    Raises:
        HttpError: as `read_object`; or a field is unknown or of the wrong type.
    """
    return to_fields(await read_object(request), kind)


def to_fields(content: dict[str, Any], kind: type[Fields]) -> Fields:
    """Check an object's fields.

    Raises:
        HttpError: a field is unknown or of the wrong type; it is named with what is allowed.
    """
    known = [field.name for field in msgspec.structs.fields(kind)]  # type: ignore[arg-type]
    for name in content:
        if name not in known:
            raise HttpError(
                400,
                f"{name[:SHOWN_CHARACTERS]} is not supported; the fields are {', '.join(known)}.",
                param=name,
            )
    try:
        return msgspec.convert(content, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _named(str(error), content) from None


def check_texts(name: str, count: int, what: str = "texts") -> None:
    """Refuse a request of more than MAX_TEXTS texts.

    Args:
        name: of the field that holds them.
        what: what is counted.

    Raises:
        HttpError: there are too many.
    """
    if count > MAX_TEXTS:
        raise HttpError(
            400,
            f"{name} has {count} {what}, but a request may have {MAX_TEXTS}. Send several requests.",
            param=name,
        )


def _named(message: str, content: dict[str, Any]) -> HttpError:
    """msgspec's message "Expected `int`, got `str` - at `$.n`", with the field and its value in front."""
    match = _AT.fullmatch(message)
    if match is None:
        missing = _MISSING.search(message)
        name = missing[1] if missing else None
        return HttpError(400, f"{name} is missing: give it." if name else f"{message}.", param=name)
    allowed, path = match[1].partition(", got")[0], match[2]
    name = re.split(r"[.\[]", path, maxsplit=1)[0]
    given = f" is {_shown(content[path])}" if path in content and path not in UNSHOWN else ""
    return HttpError(400, f"{path}{given}: {allowed[:1].lower()}{allowed[1:]}.", param=name)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
