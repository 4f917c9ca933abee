"""A generator behind gunicorn --preload: it is loaded, and used, before the workers are forked."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from sabiyarn_edge import EdgeGenerator

PROMPT, OPTIONS = json.loads(os.environ["PRELOADED_CALL"])

generator = EdgeGenerator.from_pretrained(os.environ["PRELOADED_MODEL"], num_threads=1)
generator.generate(PROMPT, **OPTIONS)
if os.environ.get("PRELOADED_IS_BUSY"):
    endless = {"max_new_tokens": 10**6, "overflow": "slide"}
    threading.Thread(target=lambda: generator.generate([4], **endless), daemon=True).start()


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Generate in a worker's thread."""
    ids = generator.generate(PROMPT, **OPTIONS).sequences.tolist()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(ids).encode()]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Generate in a worker's event loop."""
    if scope["type"] == "lifespan":
        raise ValueError("there is nothing to begin or to end")
    ids = (await generator.agenerate(PROMPT, **OPTIONS)).sequences.tolist()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(ids).encode()})
