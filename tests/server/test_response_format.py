"""Structured output over HTTP: OpenAI's response_format, our options, and the names that vLLM's clients send."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.constraints.proof import fits
from tests.server.conftest import Server, running

PROMPT = "<eng> Everyone has the right to"
SCHEMA = {
    "type": "object",
    "properties": {"article": {"type": "integer", "minimum": 1, "maximum": 30}, "kept": {"type": "boolean"}},
    "required": ["article", "kept"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "article", "strict": True, "schema": SCHEMA}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("--port", "0", "--threads", "1")
    with running(server):
        yield server


def complete(server: Server, **body: Any) -> Any:
    answer = server.post(
        "/v1/completions", json={"model": "nano", "prompt": PROMPT, "max_tokens": 80, **body}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"]


@pytest.mark.parametrize("options", [{}, {"temperature": 1, "seed": 1, "n": 3}, {"num_beams": 3}], ids=str)
def test_json_schema(server: Server, options: dict[str, Any]) -> None:
    for choice in complete(server, response_format=FORMAT, **options):
        assert choice["finish_reason"] == "stop"
        assert fits(choice["text"], SCHEMA)


def test_a_stream_of_openais_client(server: Server) -> None:
    client = server.client()
    stream = client.completions.create(
        model="nano", prompt=PROMPT, max_tokens=80, stream=True, extra_body={"response_format": FORMAT}
    )
    assert fits("".join(part.choices[0].text for part in stream if part.choices), SCHEMA)


def test_json_object(server: Server) -> None:
    [choice] = complete(server, response_format={"type": "json_object"}, num_beams=2)
    assert choice["text"].startswith("{")
    assert choice["finish_reason"] == "length" or isinstance(json.loads(choice["text"]), dict)


def test_text_is_anything(server: Server) -> None:
    assert complete(server, response_format={"type": "text"}) == complete(server)


@pytest.mark.parametrize(
    ("body", "pattern"),
    [
        ({"choices": ["life", "rest"]}, "life|rest"),
        ({"guided_choice": ["life", "rest"]}, "life|rest"),
        ({"regex": "[a-f]{3}"}, "[a-f]{3}"),
        ({"guided_regex": "[a-f]{3}"}, "[a-f]{3}"),
        ({"grammar": 'start: "x" /[a-f]{3}/'}, "x[a-f]{3}"),
        ({"guided_grammar": 'start: "x" /[a-f]{3}/'}, "x[a-f]{3}"),
        ({"guided_json": {"enum": [7]}}, "7"),
        ({"json_schema": {"enum": [7]}}, "7"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_other_forms(server: Server, body: dict[str, Any], pattern: str) -> None:
    [choice] = complete(server, **body)
    assert re.fullmatch(pattern, choice["text"])
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (
            {"response_format": {"type": "json_schema"}},
            "response_format",
            "missing required field `json_schema`",
        ),
        ({"response_format": {**FORMAT, "json_schema": {"name": "a"}}}, "response_format", "field `schema`"),
        (
            {"response_format": FORMAT, "json_schema": SCHEMA},
            "response_format",
            "response_format and json_schema are given, which mean the same",
        ),
        ({"guided_regex": "a", "regex": "b"}, "guided_regex", "guided_regex and regex are given"),
        ({"json_schema": {"type": "array", "uniqueItems": True}}, "json_schema", "uniqueItems"),
        ({"regex": "a", "choices": ["b"]}, "regex", "regex and choices are given"),
        ({"response_format": FORMAT, "stop": "a"}, "response_format", "response_format is given, and stop"),
        ({"guided_json": {"const": 2**53 + 1}}, "guided_json", "a number of const in guided_json is"),
        ({"guided_choice": "yes"}, "guided_choice", "guided_choice is 'yes'"),
        ({"regex": "xx", "no_repeat_ngram_size": 1}, "regex", "together leave no token to choose"),
    ],
)
def test_what_is_refused(server: Server, body: dict[str, Any], param: str | None, message: str) -> None:
    answer = server.post("/v1/completions", json={"model": "nano", "prompt": PROMPT, **body})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["param"] == param
