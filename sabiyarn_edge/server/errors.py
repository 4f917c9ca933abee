"""HttpError: what a client did wrong, or what the server cannot do now, as an HTTP answer in OpenAI's form."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from ..errors import InvalidInputError, OutOfMemoryError, SabiYarnError, bounded, shortened
from ..options.generation_config import GenerationConfig

__all__ = ["RETRY_SECONDS", "HttpError", "error_fields", "error_response", "json_response"]

_CHAT_FIELDS = ("messages", "tools", "tool_choice")

RETRY_SECONDS = 1
"""When to ask again, as told to a client that was sent away for lack of room."""


class HttpError(Exception):
    """An answer other than 200.

    Args:
        status: HTTP status.
        message: what was given, what is allowed, what to do.
        param: name of the field that is wrong, or None.
        code: a word for programs, or None.
        headers: further ones.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        message = bounded(message)
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.param = None if param is None else shortened(param)
        self.headers = dict(headers or {})

    @classmethod
    def later(cls, status: int, message: str, *, code: str) -> HttpError:
        """An error that passes: the client may try again."""
        return cls(status, message, code=code, headers={"Retry-After": str(RETRY_SECONDS)})

    @classmethod
    def of(cls, error: Exception) -> HttpError:
        """The answer to an error of the library; one that is none of its own is not shown to clients."""
        if isinstance(error, HttpError):
            return error
        if isinstance(error, InvalidInputError):
            first = re.split(r"[ .\[]", str(error), maxsplit=1)[0]
            known = first in GenerationConfig.__dataclass_fields__ or first in _CHAT_FIELDS
            return cls(400, str(error), param=first if known else None)
        if isinstance(error, OutOfMemoryError):
            return cls.later(503, str(error), code="out_of_memory")
        if isinstance(error, SabiYarnError):
            return cls(500, str(error))
        return cls(500, "the server failed at this request; its log says why.", code="internal_error")


def error_fields(error: HttpError) -> dict[str, object]:
    """The body that OpenAI's clients read."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    return {
        "error": {"message": error.message, "type": kind, "param": error.param, "code": error.code},
    }


def error_response(error: HttpError) -> Response:
    """The answer as a response."""
    return json_response(error_fields(error), error.status, error.headers)


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a JSON body."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")
