"""Lines of OpenAI's batch format: requests to the server's endpoints, answered by the server's application.

The application is called inside this process, without a socket. What its answers say of the moment (random ids, times,
what a cache held) is replaced, so that a job that is resumed gives the same bytes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import InvalidInputError, JobError, SabiYarnError, shown
from ..generator import EdgeGenerator
from ..options.generation_config import GenerationConfig
from ..system.installation import install_command
from ..system.json_text import json_kind
from .job import Planned, Record
from .lines import Id, Request
from .records import encoded

try:
    from ..server.app import make_app
    from ..server.service import ServedModel, Service, Settings
except ModuleNotFoundError as error:
    raise JobError(
        f"OpenAI's batch format needs the server, and {error.name} is missing: {install_command('serve')}"
    ) from error

__all__ = ["OpenAIRequests"]

URLS = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings")
_NEVER_SECONDS = 1e9
_ENDLESS_QUEUE = 2**31
_KEYS = ("custom_id", "method", "url", "body")
_CREATED = 0
"""Unix time that every answer says: a job's records do not depend on when it ran."""


class OpenAIRequests:
    """Answers requests.

    Args:
        generator: answers them all, under the name of its folder.
        config: the options that a body leaves open.
        refusal: why none may be answered; "": all may.
    """

    def __init__(self, generator: EdgeGenerator, config: GenerationConfig, refusal: str = "") -> None:
        folder = Path(generator.folder)
        settings = Settings(parallel=_ENDLESS_QUEUE, max_queue=0, timeout=_NEVER_SECONDS)
        service = Service([folder.name], lambda: {folder.name: served}, settings)
        served = ServedModel(folder.name, cast("EdgeGenerator", _WithDefaults(generator, config)), settings)
        service.models, service.state = {folder.name: served}, "ready"
        self._app = make_app(service, logs=False)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="sabiyarn_edge_batch", daemon=True
        )
        self._thread.start()
        self._generator, self._config, self._refusal = generator, config, refusal

    def plan(self, request: Request, *, seed: int) -> Planned:
        """What to run for a line.

        Args:
            seed: for a body that draws tokens and has none.
        """
        assert request.openai is not None

        def refuse(error: SabiYarnError) -> Record:
            return _record(request.id, None, {"code": "invalid_request", "message": str(error)})

        try:
            if self._refusal:
                raise InvalidInputError(self._refusal)
            url, body = _checked(request.openai)
        except InvalidInputError as error:
            return Planned((), functools.partial(_always, refuse(error)), refuse)
        if url != "/v1/embeddings":
            body = {"seed": seed, **body}
        positions = self._generator.max_length
        asked = {"n": self._config.num_return_sequences, "num_beams": self._config.num_beams}
        rows = max(body[key] if type(body.get(key)) is int else given for key, given in asked.items())
        if isinstance(given := body.get("prompt", body.get("input")), list):
            rows *= sum(not isinstance(item, int) for item in given) or 1
        unit = _HttpUnit(self, url, body, rows, _positions(body, positions) * rows)

        def write(outcomes: list[Any]) -> Record:
            status, answer = outcomes[0]
            return _record(request.id, status, _settled(answer, request.id))

        return Planned([unit], write, refuse)

    def submit(self, url: str, body: Mapping[str, Any]) -> concurrent.futures.Future[tuple[int, Any]]:
        """Begin to answer a request. Returns: the HTTP status and the answer, once they are there."""
        return asyncio.run_coroutine_threadsafe(self._answer(url, body), self._loop)

    async def _answer(self, url: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": url,
            "raw_path": url.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
        }
        asked = False
        status, parts = 0, []

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:  # the client stays until it is answered
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return status, json.loads(b"".join(parts))

    def close(self) -> None:
        """End the event loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _WithDefaults:
    """A generator whose options are others where a request leaves them open."""

    def __init__(self, generator: EdgeGenerator, config: GenerationConfig) -> None:
        self._generator, self.generation_config = generator, config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


class _HttpUnit:
    """One request as a unit."""

    def __init__(
        self, requests: OpenAIRequests, url: str, body: Mapping[str, Any], rows: int, positions: int
    ) -> None:
        self.rows, self.positions = rows, positions
        self._requests, self._url, self._body = requests, url, body
        self._future: concurrent.futures.Future[tuple[int, Any]] | None = None

    def start(self, ended: Callable[[], None]) -> None:
        self._future = self._requests.submit(self._url, self._body)
        self._future.add_done_callback(lambda future: ended())

    def outcome(self) -> tuple[int, Any]:
        assert self._future is not None
        return self._future.result()

    def abandon(self) -> None:
        if self._future is not None:
            self._future.cancel()


def _checked(content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The URL and the body of a line."""
    for key in content:
        if key not in _KEYS:
            raise InvalidInputError(f"{key} is no key of OpenAI's batch format; they are {', '.join(_KEYS)}.")
    if content.get("method", "POST") != "POST":
        raise InvalidInputError(f"method is {shown(content['method'])}; it must be POST.")
    if content.get("url") not in URLS:
        raise InvalidInputError(f"url is {shown(content.get('url'))}; it must be one of {', '.join(URLS)}.")
    body = content["body"]
    if not isinstance(body, dict):
        raise InvalidInputError(f"body is {json_kind(body)}; it must be an object.")
    if body.get("stream"):
        raise InvalidInputError("stream is true, but nobody reads along in a batch. Leave it out.")
    return content["url"], body


def _positions(body: Mapping[str, Any], most: int) -> int:
    """Positions that a row may take, as far as the body says without being tokenized."""
    new = next(
        (body[key] for key in ("max_completion_tokens", "max_tokens") if type(body.get(key)) is int), most
    )
    given = body.get("prompt", body.get("messages", body.get("input", "")))
    return min(max(new, 0) + len(json.dumps(given)), most)  # a token has a character at least


def _settled(answer: Any, id: Id) -> Any:
    """An answer without what depends on the moment."""
    if isinstance(answer, dict):
        if isinstance(answer.get("id"), str):
            answer["id"] = f"{answer['id'].partition('-')[0]}-{_name(id)}"
        if "created" in answer:
            answer["created"] = _CREATED
        if isinstance(answer.get("usage"), dict):
            answer["usage"].pop("prompt_tokens_details", None)  # of the cache
    return answer


def _record(id: Id, status: int | None, answer: Any) -> Record:
    """A record in OpenAI's form.

    Args:
        status: of HTTP; None: nothing was asked, and `answer` says why.
    """
    name = _name(id)
    fields: dict[str, Any] = {"id": f"batch_req_{name}", "custom_id": id, "response": None, "error": None}
    if status is None:
        return Record(encoded({**fields, "error": answer}), is_error=True)
    fields["response"] = {"status_code": status, "request_id": f"req_{name}", "body": answer}
    usage = answer.get("usage", {}) if isinstance(answer, dict) else {}
    tokens = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return Record(encoded(fields), *tokens, is_error=status != 200)


def _always(record: Record, outcomes: list[Any]) -> Record:
    return record


def _name(id: Id) -> str:
    return hashlib.sha256(json.dumps(id).encode()).hexdigest()[:24]
