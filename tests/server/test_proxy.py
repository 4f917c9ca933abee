"""The server behind nginx, as docs/server.md sets it up."""

from __future__ import annotations

import getpass
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.export.models import Exported
from tests.server.conftest import SECONDS, Server, wait_until
from tests.server.test_documents import DOCUMENT, blocks

pytestmark = [
    pytest.mark.skipif(not DOCUMENT.is_file(), reason="documents are in the repository only"),
    pytest.mark.skipif(shutil.which("nginx") is None, reason="there is no nginx here: apt-get install nginx"),
]


@contextmanager
def nginx(folder: Path, upstream: Path) -> Iterator[str]:
    """The documented configuration on a port of loopback, without TLS; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    [site] = blocks("nginx")
    site = re.sub(r"^ *ssl_.*\n", "", site, flags=re.MULTILINE)
    site = site.replace("/run/sabiyarn-edge/http.sock", str(upstream)).replace("443 ssl", f"127.0.0.1:{port}")
    paths = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; user {getpass.getuser()};\n"
        f"events {{}}\nhttp {{\n  access_log off;\n{paths}{site}}}\n"
    )
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        wait_until(lambda: answers(port) or process.poll() is not None)
        assert process.poll() is None
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(SECONDS)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_requests_and_the_page(serve: Callable[..., Server], tagged: Exported, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    server = serve("--model", f"tagged={tagged.folder}", "--host", path)
    server.wait_until_ready()
    with nginx(tmp_path, path) as url, httpx.Client(base_url=url, timeout=SECONDS) as client:
        assert client.get("/").headers["content-security-policy"]
        answer = client.post("/v1/completions", json={"prompt": "a", "max_tokens": 3})
        assert answer.json()["usage"]["completion_tokens"] == 3
        assert client.post("/v1/completions", content=b"x" * (2**20 + 1)).status_code == 413
