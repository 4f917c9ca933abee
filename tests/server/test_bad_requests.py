"""Requests that are refused: by name, with what is allowed, and never with a traceback."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from sabiyarn_edge.server.body import BODY_SECONDS
from tests.server.conftest import SECONDS, Server

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"prompt": None}, "prompt", "prompt must be a text"),
        ({"prompt": ""}, None, "prompt must be a text"),
        ({"prompt": [[]]}, None, "prompt must be a text"),
        ({"prompt": [[1], "a", 3]}, None, "prompt must be a text"),
        ({"prompt": {"a": 1}}, None, "prompt must be a text"),
        ({"prompt": ["a", ""]}, None, "prompt must be a text"),
        (
            {"prompt": ["a"] * 2049},
            "prompt",
            "prompt has 2049 texts, but a request may have 2048. Send several",
        ),
        (
            {"prompt": ["a"] * 1025, "n": 2, "temperature": 1},
            "prompt",
            "prompt has 2050 texts, times n, but a request may have 2048. Send several requests",
        ),
        ({"prompt": [400]}, "prompt", "ids of this model are 0 to 319"),
        (
            {"prompt": [1] * 90, "max_tokens": 9},
            "prompt",
            "90 tokens and max_tokens is 9: 99 positions, but the limit",
        ),
        ({"prompt": [1] * 96}, None, "96 tokens; with at most 96 positions"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens is 0: expected `int` >= 1"),
        ({"max_tokens": "5"}, "max_tokens", "max_tokens is '5': expected `int"),
        ({"max_tokens": 5, "max_new_tokens": 5}, "max_new_tokens", "max_new_tokens and max_tokens are given"),
        ({"temperature": "0.5"}, "temperature", "temperature is '0.5': expected `float"),
        ({"temperature": -1}, "temperature", "expected `float` >= 0"),
        (
            {"temperature": 1e-50},
            "temperature",
            "temperature is 1e-50, but must be a finite number at least 1e-20",
        ),
        ({"temperature": 0, "do_sample": True}, "temperature", "temperature is 0, which takes the best"),
        ({"temperature": True}, "temperature", "temperature is True"),
        ({"top_p": 0}, "top_p", "top_p is 0, but must be a finite number above 0 and at most 1"),
        ({"top_k": 1.5}, "top_k", "top_k is 1.5, but must be an integer"),
        ({"num_beams": 65}, "num_beams", "an integer from 1 to 64"),
        ({"n": 0}, "n", "n is 0: expected `int` >= 1"),
        (
            {"n": 2},
            "n",
            "n is 2 but temperature is 0 or not given and num_beams is 1: greedy decoding has one output. Set a temp",
        ),
        ({"n": 2, "do_sample": False}, "n", "n is 2 but do_sample is False"),
        ({"num_return_sequences": 2}, "num_return_sequences", "num_return_sequences is 2 but temperature"),
        ({"max_tokens": 10**20}, "max_tokens", "max_tokens is 100000000000000000000"),
        ({"max_new_tokens": 10**20}, "max_new_tokens", "max_new_tokens is 100000000000000000000"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias", "logit_bias"),
        ({"ignore_eos": True}, "ignore_eos", "ignore_eos is not supported. Leave it out."),
        (
            {"n": 5, "temperature": 1},
            "n",
            "needs 5 rows (prompts times n, or times num_beams), but the server has 4",
        ),
        ({"num_beams": 5}, "num_beams", "needs 5 rows"),
        ({"prompt": ["a", "b"], "num_beams": 3}, "num_beams", "needs 6 rows"),
        ({"num_beams": 2, "n": 2, "stream": True}, None, "stream is true, n is 2 and num_beams is 2"),
        ({"num_beams": 2, "logprobs": 1}, None, "logprobs is given and num_beams is 2"),
        ({"logprobs": True}, "logprobs", "logprobs is True: expected `int"),
        ({"logprobs": 21}, "logprobs", "<= 20"),
        ({"seed": -1}, "seed", "seed is -1"),
        ({"seed": 2**64}, "seed", "seed is 18446744073709551616"),
        ({"stop": [1]}, "stop", "stop[0]: expected `str`"),
        ({"stop": [""]}, "stop", "stop[0] is ''"),
        ({"logit_bias": {"x": 1}}, None, "logit_bias has the key 'x'"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "<= 100"),
        ({"logit_bias": {"400": 1}}, None, "400"),
        ({"stream": "yes"}, "stream", "stream is 'yes': expected `bool"),
        ({"stream_options": {"include_usage": True}}, None, "stream_options is given but stream is not true"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options", "unknown field `x`"),
        ({"suffix": "x"}, "suffix", "suffix is not supported"),
        ({"best_of": 3}, "best_of", "best_of is not supported"),
        ({"messages": []}, "messages", "messages is not supported here"),
        ({"temprature": 1}, "temprature", "unknown option temprature; did you mean temperature?"),
        ({"penalty_alpha": 0.5}, None, "not implemented here"),
        ({"logits_processor": "x"}, None, "is a function"),
        ({"attn_mask": [[1]]}, None, "unknown option attn_mask"),
        ({"overflow": "drop"}, "overflow", "overflow is 'drop'"),
        ({"max_time": 0}, "max_time", "max_time is 0"),
    ],
    ids=lambda value: f"{value!s:.80}",
)
@pytest.mark.parametrize("stream", [False, True])
def test_completions(
    server: Server, body: dict[str, Any], param: str | None, message: str, stream: bool
) -> None:
    if stream and "stream_options" not in body:
        body = {"stream": True, **body}
    answer = server.post("/v1/completions", json={"prompt": "a", **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param


def test_unknown_models(client: openai.OpenAI) -> None:
    with pytest.raises(
        openai.NotFoundError, match="there is no model 'other'; the models are tiny"
    ) as caught:
        client.completions.create(model="other", prompt="a")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"prompt": "a"} x', "not JSON"),
        (b'{"prompt": NaN}', "not JSON"),
        (b"[" * 500_000, "not JSON"),
        (b'{"prompt":' * 90_000, "not JSON"),
        (b'{"prompt": "a", "logit_bias": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", ""),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", ""),
        (b'{"prompt": "a", "\\ud800": 1}', ""),
        (b'{"prompt": "a", "json_schema": "' + b"[" * 200_000 + b'"}', "nested too deeply"),
        (b'{"prompt": "a", "stop": "\\ud800"}', ""),
        (b'{"prompt": "a", "logit_bias": {"' + b"1" * 5000 + b'": 1}}', "logit_bias has the key '111"),
        (b'{"prompt": "a", "choices": ["a"' + b', "b"' * 20_000 + b"]}", "choices holds 'b' twice"),
        (b'{"prompt": "a", "stream": true, "stream_options": {"' + b"x" * 10**6 + b'": 1}}', "unknown field"),
        (b'{"prompt": "a", "' + b"x" * 10**6 + b'": 1}', "unknown option xxx"),
        (b'{"prompt": "a", "stop": ["\\ud800"]}', "it holds \\ud800, half of a surrogate pair"),
        (
            b'{"prompt": "a", "stop": ["\\uD83D\\uDE00 \\uDE00"]}',
            "it holds \\uDE00, half of a surrogate pair",
        ),
        (rb'{"prompt": "\\ud800", "stop": ["a', "not JSON that can be read: Input data was truncated"),
        (b"null", "a JSON null; it must be an object"),
        (b'["prompt"]', "a JSON array; it must be an object"),
        (b"3", "a JSON number; it must be an object"),
        (b'{"prompt": "a", "seed": ' + b"9" * 4000 + b"}", ""),
        (b'{"prompt": "a", "temperature": 1e999}', ""),
    ],
)
def test_malformed_bodies(server: Server, content: bytes, message: str) -> None:
    answer = server.post("/v1/completions", content=content, headers=JSON)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert len(answer.content) < 5000


@pytest.mark.parametrize(
    "kind", [{}, {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}]
)
def test_only_json_is_taken(server: Server, kind: dict[str, str]) -> None:
    answer = server.post("/v1/completions", content=b'{"prompt": "a"}', headers=kind)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_that_are_too_long(server: Server, chunked: bool) -> None:
    body = b'"' + b"a" * (5 * 2**20) + b'"'
    with httpx.Client(base_url=server.url, timeout=SECONDS) as client:
        answer = client.post("/v1/completions", content=iter([body]) if chunked else body, headers=JSON)
        assert answer.status_code == 413
        message = answer.json()["error"]["message"]
        assert "1048576" in message and (chunked or str(len(body)) in message)
        assert client.get("/health").status_code == 200  # on the same connection, if it stayed open


def test_a_length_that_is_too_long_is_refused_before_the_body(server: Server) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=BODY_SECONDS / 2) as connection:
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048577"
        connection.sendall(f"{head}\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%00", 404),
        ("GET", "//v1//models", 404),
    ],
)
def test_other_paths(server: Server, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"{server.url}{path}")
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
