"""/v1/models, /health and /metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from .completions import service_of
from .errors import json_response
from .metrics import CONTENT_TYPE
from .service import ServedModel

__all__ = ["health", "metrics", "model", "models"]


async def models(request: Request) -> Response:
    """All models."""
    served = service_of(request)
    return json_response(
        {"object": "list", "data": [_described(served.models[name]) for name in served.names]}
    )


async def model(request: Request) -> Response:
    """One model."""
    return json_response(_described(service_of(request).model(request.path_params["name"])))


def _described(served: ServedModel) -> dict[str, object]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "sabiyarn-edge",
        "max_model_len": served.generator.max_length,
    }


async def health(request: Request) -> Response:
    """Whether requests are taken: 200, or else 503."""
    state = service_of(request).state
    return json_response({"status": state}, 200 if state == "ready" else 503)


async def metrics(request: Request) -> Response:
    """What the server counts, for Prometheus."""
    service = service_of(request)
    return Response(service.metrics.text(service.gauges()), media_type=CONTENT_TYPE)
