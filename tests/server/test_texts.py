"""/v1/embeddings, /tokenize and /detokenize."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import openai
import pytest

from sabiyarn_edge import EdgeGenerator
from tests.server.conftest import Server

JSON = {"Content-Type": "application/json"}
TEXTS = ["Gbogbo ènìyàn", "Su dai", "a"]


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize(
    "given", [TEXTS, TEXTS[0], [5, 6, 7], [[5, 6], [7]]], ids=["texts", "text", "ids", "lists"]
)
def test_embeddings(client: openai.OpenAI, generator: EdgeGenerator, given: Any, encoding: Any) -> None:
    expected = np.atleast_2d(generator.embed(given, normalize=True))
    answer = client.embeddings.create(model="tiny", input=given, encoding_format=encoding)
    vectors = [item.embedding for item in answer.data]
    if encoding == "base64":
        vectors = [np.frombuffer(base64.b64decode(text), "<f4") for text in vectors]
    np.testing.assert_array_equal(np.array(vectors, np.float32), expected)
    assert [item.index for item in answer.data] == list(range(len(expected)))


def test_embeddings_as_the_client_asks_by_itself(client: openai.OpenAI, generator: EdgeGenerator) -> None:
    answer = client.embeddings.create(
        model="tiny", input=TEXTS, extra_body={"pooling": "last", "normalize": False}
    )
    expected = generator.embed(TEXTS, pooling="last")
    np.testing.assert_array_equal(np.array([item.embedding for item in answer.data], np.float32), expected)
    assert generator.tokenizer is not None
    assert answer.usage.prompt_tokens == sum(len(generator.tokenizer.encode(text)) for text in TEXTS)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "input is missing"),
        ({"input": []}, "input must be a text"),
        ({"input": ""}, "input must be a text"),
        ({"input": [1, "a"]}, "input must be a text"),
        ({"input": [True]}, "input must be a text"),
        ({"input": [400]}, "token id 400"),
        (
            {"input": ["a"] * 2049},
            "input has 2049 texts, but a request may have 2048. Send several requests.",
        ),
        ({"input": [list(range(97))]}, "97 tokens, but there are 96 positions"),
        ({"input": "a", "dimensions": 5}, "dimensions is not supported; the fields are model, input"),
        ({"input": "a", "pooling": "max"}, "pooling is 'max': invalid enum value"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format is 'int8'"),
    ],
)
def test_bad_embeddings(server: Server, body: dict[str, Any], message: str) -> None:
    answer = server.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["param"] == next((name for name in body if name != "input"), "input")


def test_tokens(server: Server, generator: EdgeGenerator) -> None:
    text = "Gbogbo ènìyàn"
    assert generator.tokenizer is not None
    ids = generator.tokenizer.encode(text)
    answer = server.post("/tokenize", json={"prompt": text}).json()
    assert answer == {"tokens": ids, "count": len(ids), "max_model_len": 96}
    assert server.post("/detokenize", json={"tokens": ids}).json() == {"prompt": text}
    for token in (-1, 320, 99999):
        wrong = server.post("/detokenize", json={"tokens": [ids[0], token]})
        assert wrong.status_code == 400
        assert f"{token} at index 1, which is no token id: these are 0 to 319" in wrong.text
    assert server.post("/detokenize", json={"tokens": [2**70]}).status_code == 400
    assert server.post("/tokenize", content=rb'{"prompt": "\ud800"}', headers=JSON).status_code == 400
