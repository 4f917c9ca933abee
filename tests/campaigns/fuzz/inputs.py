"""Fuzz targets: what comes besides a model's own files: tasks, chat templates, lines of a batch, HTTP bodies."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.chat import messages, template
from sabiyarn_edge.errors import SabiYarnError
from sabiyarn_edge.generator import find_model
from sabiyarn_edge.jobs import lines
from sabiyarn_edge.server import body
from sabiyarn_edge.server.app import make_app
from sabiyarn_edge.server.service import ServedModel, Service, Settings
from sabiyarn_edge.tasks import task_file
from tests.campaigns.fuzz.mutations import damaged, damaged_json
from tests.campaigns.fuzz.target import Target
from tests.chat.family import CONFIG, TEMPLATE

__all__ = ["INPUTS"]

NANO = find_model("nano")


class Tasks(Target):
    """tasks.json."""

    module = task_file

    def whole(self) -> bytes:
        return (NANO / "tasks.json").read_bytes()

    def make(self, rng: random.Random) -> bytes:
        return damaged_json(self.whole(), rng)

    def read(self, content: bytes) -> None:
        (self.folder / "tasks.json").write_bytes(content)
        found = task_file.TaskFile.load(self.folder)
        for name in ("translate", "sentiment", "nothing"):
            try:
                found.task(name)
            except SabiYarnError:
                continue


class Template(Target):
    """chat_template.jinja: statements and names of the family's, in another order or damaged."""

    module = template
    _words = (
        *("{%- for message in messages -%}", "{%- endfor -%}", "{%- if message.role == 'tool' -%}"),
        *("{%- else -%}", "{%- endif -%}", "{{ message.content }}", "{{ messages[0]['content'] | tojson }}"),
        *("{{ raise_exception('no') }}", "{{ strftime_now('%Y') }}", "{{ tools }}", "{{ ''.__class__ }}"),
        *("{{ messages.append(1) }}", "{% set ns = namespace(a=1) %}", "{{ bos_token }}", "{% break %}"),
        *("{% generation %}", "{% endgeneration %}", "{{ 'a' * 9 }}", "{{ [1,2][5] }}", "{{ x.y.z }}"),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")

    def whole(self) -> bytes:
        return TEMPLATE.encode()

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return "\n".join(rng.choices(self._words, k=rng.randint(1, 12))).encode()
        return damaged(self.whole(), rng)

    def parse(self, content: bytes) -> template.ChatTemplate:
        (self.folder / "chat_template.jinja").write_bytes(content)
        found = template.ChatTemplate.find(self.folder)
        assert found is not None
        return found

    def read(self, content: bytes) -> None:
        found = self.parse(content)
        found.render([{"role": "user", "content": "ọmọ"}, {"role": "tool", "name": "f", "content": "1"}])


class TemplateConfig(Target):
    """tokenizer_config.json, which may hold templates and names tokens."""

    module = template

    def whole(self) -> bytes:
        named = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "{{ tools }}"}]
        return json.dumps({**CONFIG, "chat_template": named}).encode()

    def make(self, rng: random.Random) -> bytes:
        return damaged_json(self.whole(), rng)

    def parse(self, content: bytes) -> template.ChatTemplate | None:
        (self.folder / "tokenizer_config.json").write_bytes(content)
        return template.ChatTemplate.find(self.folder)

    def read(self, content: bytes) -> None:
        found = self.parse(content)
        if found is not None:
            said = [{"role": "user", "content": "ọmọ"}]
            found.render(said)
            found.render(said, [{"type": "function", "function": {"name": "f"}}])


class Messages(Target):
    """Messages of a chat."""

    module = messages

    def whole(self) -> bytes:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        said: list[dict[str, Any]] = [
            {"role": "system", "content": "ẹ"},
            {"role": "user", "content": [{"type": "text", "text": "ọmọ"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "2"},
        ]
        return json.dumps(said).encode()

    def make(self, rng: random.Random) -> bytes:
        return damaged_json(self.whole(), rng)

    def read(self, content: bytes) -> None:
        try:
            given = json.loads(content)
        except (ValueError, RecursionError):
            return
        messages.read_messages(given)


class BatchLine(Target):
    """A line of a batch's input."""

    module = lines
    _lines = (
        {"id": "a", "text": "ọmọ", "to": "yor", "options": {"max_new_tokens": 3}, "labels": ["a", "b"]},
        {"custom_id": "7", "method": "POST", "url": "/v1/completions", "body": {"prompt": "a"}},
    )

    def whole(self) -> bytes:
        return json.dumps(self._lines[0]).encode()

    def make(self, rng: random.Random) -> bytes:
        return damaged_json(json.dumps(rng.choice(self._lines)).encode(), rng)

    def read(self, content: bytes) -> None:
        text = lines.decoded(content, 3)
        lines.read_line(text, 3, "lines", "text")
        lines.read_line(text, 3, "jsonl", "text")


class HttpBody(Target):
    """A request's path and body, through the server's whole application."""

    module = body
    allowed = ()
    _requests: tuple[tuple[str, dict[str, Any]], ...] = (
        (
            "/v1/completions",
            {"prompt": "ọmọ", "max_tokens": 2, "temperature": 0.5, "logprobs": 1, "stop": ["a"]},
        ),
        ("/v1/completions", {"prompt": [[5, 6], [7]], "max_tokens": 1, "logit_bias": {"9": 1}, "echo": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "n": 1}),
        ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "float"}),
        ("/v1/tasks/translate", {"text": ["ọmọ"], "to": "yor", "options": {"max_new_tokens": 2}}),
        ("/tokenize", {"prompt": "ọmọ"}),
        ("/detokenize", {"tokens": [5, 6]}),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        settings = Settings(parallel=4, max_queue=8, timeout=30, max_tokens_limit=4)
        self._generator = EdgeGenerator.from_pretrained(NANO, num_threads=1, max_batch_size=4, max_length=64)
        service = Service(
            ["nano"], lambda: {"nano": ServedModel("nano", self._generator, settings)}, settings
        )
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(service.load())
        self._app = make_app(service, logs=False)

    def whole(self) -> bytes:
        path, content = self._requests[0]
        return path.encode() + b"\n" + json.dumps(content).encode()

    def make(self, rng: random.Random) -> bytes:
        path, content = rng.choice(self._requests)
        return path.encode() + b"\n" + damaged_json(json.dumps(content).encode(), rng)

    def read(self, content: bytes) -> None:
        path, sent = content.split(b"\n", 1)
        status, answer = self._loop.run_until_complete(self._ask(path.decode(), sent))
        assert status < 500, f"status {status}: {answer[:200]!r}"
        if status >= 400:
            assert json.loads(answer)["error"]["message"]

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._generator.close()

    async def _ask(self, path: str, sent: bytes) -> tuple[int, bytes]:
        scope = {
            **{"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path},
            **{"raw_path": path.encode(), "query_string": b"", "root_path": "", "state": {}},
            "headers": [
                (b"host", b"x"),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(sent)).encode()),
            ],
        }
        waiting = [{"type": "http.request", "body": sent, "more_body": False}]
        got: list[Any] = []

        async def receive() -> Any:
            if waiting:
                return waiting.pop()
            await asyncio.sleep(3600)

        async def send(message: Any) -> None:
            got.append(message)

        await self._app(scope, receive, send)
        return got[0]["status"], b"".join(message.get("body", b"") for message in got[1:])


INPUTS: dict[str, type[Target]] = {
    "tasks": Tasks,
    "template": Template,
    "template_config": TemplateConfig,
    "messages": Messages,
    "batch_line": BatchLine,
    "http_body": HttpBody,
}
