"""The ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Lifespan

from ..errors import SabiYarnError
from .access import NameCheck, RequestLog, record_of
from .errors import HttpError, error_response
from .routes import routes
from .service import Service

__all__ = ["make_app"]


def make_app(service: Service, lifespan: Lifespan[Starlette] | None = None, *, logs: bool = True) -> ASGIApp:
    """The application of a service.

    Args:
        lifespan: what to do before the first request and after the last.
        logs: whether each request has a line in the log.
    """
    cors = [
        Middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's client for JavaScript sends a dozen of its own
            expose_headers=["Retry-After"],
        )
    ]
    app = Starlette(
        routes=routes(service),
        middleware=[
            *(cors if service.settings.cors_origins else []),
            *([] if service.settings.api_keys else [Middleware(NameCheck, service=service)]),
        ],
        exception_handlers={
            HttpError: _refuse,
            SabiYarnError: _refuse,
            HTTPException: _refuse_path,
            ClientDisconnect: _leave,
            Exception: _refuse,
        },
        lifespan=lifespan,
    )
    app.state.service = service
    app.router.redirect_slashes = False  # it would send clients to whatever host they name
    return RequestLog(app, service) if logs else app


async def _refuse(request: Request, error: Exception) -> Response:
    told = HttpError.of(error)
    record_of(request.scope)["error"] = told.message
    return error_response(told)


async def _refuse_path(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, or not with this method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path} is not answered here: {error.detail}."
    return error_response(HttpError(error.status_code, message, headers=error.headers))


async def _leave(request: Request, error: Exception) -> Response:
    """Nobody reads this."""
    record_of(request.scope)["gone"] = True
    return Response(status_code=400)
