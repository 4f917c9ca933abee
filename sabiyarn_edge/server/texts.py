"""/v1/embeddings, /tokenize and /detokenize."""

from __future__ import annotations

import base64
from typing import Any, Literal

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from ..calls.pooling import Pooling
from .access import record_of
from .body import read_fields
from .completions import encoded, service_of, texts_or_ids, tokenizer_of
from .errors import json_response
from .event_stream import unless_gone
from .generation_fields import named_as_sent
from .service import ServedModel

__all__ = ["detokenize", "embeddings", "tokenize"]


class EmbeddingFields(msgspec.Struct, kw_only=True):
    """The body of /v1/embeddings."""

    model: str | None = None
    input: Any
    """A text, ids, or a list of either."""
    encoding_format: Literal["float", "base64"] | None = None
    pooling: Pooling = "mean"
    normalize: bool = True
    """Vectors of length 1, as OpenAI gives them."""
    user: str | None = None


class TokenizeFields(msgspec.Struct, kw_only=True):
    """The body of /tokenize."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool = True


class DetokenizeFields(msgspec.Struct, kw_only=True):
    """The body of /detokenize."""

    model: str | None = None
    tokens: list[int]


async def embeddings(request: Request) -> Response:
    """Texts as vectors."""
    fields = await read_fields(request, EmbeddingFields)
    model = service_of(request).model(fields.model)
    with named_as_sent({"input": fields.input}, "input"):
        return await _embed(request, fields, model)


async def _embed(request: Request, fields: EmbeddingFields, model: ServedModel) -> Response:
    service = service_of(request)
    given = texts_or_ids("input", fields.input)
    texts = await service.prepare(lambda: encoded(given, tokenizer_of(model)))
    tokens = sum(map(len, texts))
    record_of(request.scope).update(model=model.name, prompt=tokens)
    with model.admitted(1, service.metrics):  # they run one after the other, or share a step
        work = model.generator.aembed(texts, pooling=fields.pooling, normalize=fields.normalize)
        vectors = await unless_gone(request.receive, service.whole(work, service.end_of_time()))
    service.metrics.prompt_tokens[model.name] += tokens
    return json_response(
        {
            "object": "list",
            "model": model.name,
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _base64(vector) if fields.encoding_format == "base64" else vector.tolist(),
                }
                for index, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _base64(vector: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    """Little-endian float32, as OpenAI's clients ask for them."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


async def tokenize(request: Request) -> Response:
    """A text's token ids."""
    fields = await read_fields(request, TokenizeFields)
    service = service_of(request)
    model = service.model(fields.model)
    encode = tokenizer_of(model).encode
    tokens = await service.prepare(
        lambda: encode(fields.prompt, add_special_tokens=fields.add_special_tokens)
    )
    return json_response(
        {"tokens": tokens, "count": len(tokens), "max_model_len": model.generator.max_length}
    )


async def detokenize(request: Request) -> Response:
    """Token ids' text."""
    fields = await read_fields(request, DetokenizeFields)
    model = service_of(request).model(fields.model)
    with named_as_sent({"tokens": fields.tokens}, "tokens"):
        return json_response({"prompt": tokenizer_of(model).decode(fields.tokens, skip_special_tokens=False)})
