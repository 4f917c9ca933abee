"""The writer's page: files of this package, read once, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["page_routes"]

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

HEADERS = {
    # Scripts, styles and requests of this server only; no other page shows this one in a frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again after an update, and answered with 304 otherwise
}


class PageFile:
    """An endpoint that gives one file.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._headers = {**HEADERS, "ETag": f'"{hashlib.sha256(self._content).hexdigest()[:16]}"'}
        self._type = TYPES[path.suffix]

    async def __call__(self, request: Request) -> Response:
        if request.headers.get("if-none-match") == self._headers["ETag"]:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers, media_type=self._type)


def page_routes() -> list[Route]:
    """A route for each file; the page itself is at "/"."""
    return [
        Route("/" if path.name == INDEX else f"/page/{path.name}", PageFile(path).__call__, methods=["GET"])
        for path in sorted(FOLDER.iterdir())
        if path.suffix in TYPES
    ]
