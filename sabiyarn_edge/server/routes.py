"""What the server answers to: each path with its endpoint."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from .access import Gate
from .completions import chat_completions, completions
from .page import page_routes
from .service import Service
from .status import health, metrics, model, models
from .tasks import run_task, tasks
from .texts import detokenize, embeddings, tokenize

__all__ = ["routes"]

OPEN = (("GET", "/health", health),)
"""Answered to anybody, at any time, as the page is."""

GUARDED = (
    ("GET", "/metrics", metrics),
    ("GET", "/v1/models", models),
    ("GET", "/v1/models/{name:path}", model),
    ("POST", "/v1/completions", completions),
    ("POST", "/v1/chat/completions", chat_completions),
    ("POST", "/v1/embeddings", embeddings),
    ("GET", "/v1/tasks", tasks),
    ("POST", "/v1/tasks/{name}", run_task),
    ("POST", "/tokenize", tokenize),
    ("POST", "/detokenize", detokenize),
)
"""Answered to those who have a key, while the server is ready."""


def routes(service: Service) -> list[BaseRoute]:
    """All routes."""
    gate = Middleware(Gate, service=service)
    return [
        *page_routes(),
        *(Route(path, endpoint, methods=[method]) for method, path, endpoint in OPEN),
        *(Route(path, endpoint, methods=[method], middleware=[gate]) for method, path, endpoint in GUARDED),
    ]
