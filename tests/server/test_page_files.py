"""The page's files as they are served: which, with what headers, and nothing beside them."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

import sabiyarn_edge
from tests.server.conftest import Server

FOLDER = Path(sabiyarn_edge.__file__).parent / "server" / "page"
FILES = {path.name: "/" if path.name == "index.html" else f"/page/{path.name}" for path in FOLDER.iterdir()}


@pytest.mark.parametrize("name", sorted(FILES))
def test_files(server: Server, name: str) -> None:
    answer = server.get(FILES[name])
    assert answer.status_code == 200
    assert answer.content == (FOLDER / name).read_bytes()
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert set(policy.values()) == {"'none'", "'self'"}
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    kind = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert answer.headers["content-type"].startswith(kind[Path(name).suffix])
    again = server.get(FILES[name], headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.head(server.url + FILES[name]).headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_file_names_an_address_elsewhere(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    addresses = set(re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]+", text))
    assert addresses <= {"http://www.w3.org"}  # the name of SVG's elements


@pytest.mark.parametrize(
    "path",
    [
        "/page",
        "/page/",
        "/page/index.html",
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page/..%5capp.py",
        "/page//main.js",
        "/page/main.js%00",
        "/page/main.js/",
        "/page/%2fetc%2fpasswd",
        "/page/MAIN.JS",
        "//etc/passwd",
    ],
)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    """Sent as it stands: httpx would tidy it up."""
    import socket
    from urllib.parse import urlsplit

    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]


def test_only_reading_is_answered(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert httpx.request(method, server.url + "/").status_code == 405
