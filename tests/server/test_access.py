"""Keys, other origins, and the log."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from sabiyarn_edge.server.app import make_app
from sabiyarn_edge.server.service import Service, Settings
from tests.server.conftest import Server, wait_until


@pytest.fixture
def guarded(serve: Callable[..., Server], text_model: Path, tmp_path: Path) -> Server:
    keys = tmp_path / "keys"
    keys.write_text("# of the app\nfirst-key\n\nsecond-key\n")
    server = serve(
        *("--model", f"tiny={text_model}", "--api-key-file", keys, "--api-key", "third-key"),
        *("--cors-origins", "https://one.example,https://two.example", "--log-prompts"),
    )
    server.wait_until_ready()
    return server


def test_keys(guarded: Server) -> None:
    for key in ("first-key", "second-key", "third-key"):
        assert [model.id for model in guarded.client(api_key=key).models.list()] == ["tiny"]
    for key in ("first-ke", "first-keyy", "wrong", "# of the app", "fïrst-key".encode().decode("latin-1")):
        for path in ("/v1/models", "/metrics"):
            answer = guarded.get(path, headers={"Authorization": b"Bearer " + key.encode("latin-1")})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.AuthenticationError, match="the API key is wrong") as caught:
        guarded.client(api_key="wrong").completions.create(model="tiny", prompt="a")
    assert caught.value.code == "invalid_api_key"
    for headers in ({}, {"Authorization": "Basic first-key"}, {"Authorization": "first-key"}):
        answer = guarded.post("/v1/completions", json={"prompt": "a"}, headers=headers)
        assert answer.status_code == 401
    assert guarded.get("/health").json() == {"status": "ready"}
    assert "-key" not in guarded.log


def test_other_origins(guarded: Server) -> None:
    asked = {"Origin": "https://two.example", "Access-Control-Request-Method": "POST"}

    def preflight(origin: str) -> httpx.Response:
        headers = {**asked, "Origin": origin, "Access-Control-Request-Headers": "authorization,content-type"}
        return httpx.options(f"{guarded.url}/v1/completions", headers=headers)

    assert preflight("https://two.example").headers["access-control-allow-origin"] == "https://two.example"
    assert "access-control-allow-origin" not in preflight("https://evil.example").headers


def test_clients_in_a_browser_may_send_their_headers_and_see_when_to_come_again(guarded: Server) -> None:
    """The names are those that OpenAI's package for JavaScript sends."""
    names = "authorization,content-type,x-stainless-arch,x-stainless-os,x-stainless-retry-count"
    origin = {"Origin": "https://one.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": names}
    preflight = httpx.options(f"{guarded.url}/v1/completions", headers={**origin, **asked})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-headers"] == names
    answer = guarded.get("/health", headers=origin)
    assert answer.headers["access-control-expose-headers"].lower() == "retry-after"


def test_without_the_option_no_origin_is_let_in(server: Server) -> None:
    answer = server.get("/health", headers={"Origin": "https://one.example"})
    assert "access-control-allow-origin" not in answer.headers


SELF = "127.0.0.1:8080"


@pytest.mark.parametrize(
    ("host", "taken"),
    [
        *(
            (host, True)
            for host in (SELF, "localhost:8080", "LOCALHOST.", "a.localhost:1", "[::1]:8080", "sabiyarn")
        ),
        *((host, True) for host in ("192.168.1.7", "board:8080", "Board.local", "pi.lan", "PI.lan:80")),
        *(
            (host, False)
            for host in ("evil.example", "evil.example:8080", "localhost.evil.example", "board.evil.example")
        ),
        *(
            (host, False)
            for host in ("127.0.0.1.evil.example", "evil.local", "x.pi.lan", "[:8080", "a@evil.example")
        ),
    ],
)
def test_names_of_others_are_refused_without_keys(
    monkeypatch: pytest.MonkeyPatch, host: str, taken: bool
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "board")
    answer = ask("GET", "/health", Host=host)
    assert answer.status_code == (200 if taken else 421)
    if not taken:
        error = answer.json()["error"]
        assert "no name of this machine" in error["message"] and "--allowed-hosts" in error["message"]
        assert ask("GET", "/", Host=host).status_code == 421
    assert ask("GET", "/health", api_keys=("key",), Host=host).status_code == 200
    assert ask("GET", "/health", port=None, Host=host).status_code == 200  # a Unix socket


@pytest.mark.parametrize(
    ("origin", "taken"),
    [
        *((origin, True) for origin in (f"http://{SELF}", "https://app.example", "https://pi.lan")),
        *(
            (origin, False)
            for origin in ("http://127.0.0.1:3000", "https://evil.example", "null", "https://[")
        ),
    ],
)
def test_posts_of_other_pages_are_refused_without_keys(origin: str, taken: bool) -> None:
    answer = ask("POST", "/nowhere", Host=SELF, Origin=origin)
    assert answer.status_code == (404 if taken else 403)
    if not taken:
        assert "--cors-origins" in answer.json()["error"]["message"]
    assert (
        ask("GET", "/health", Host=SELF, Origin=origin).status_code == 200
    )  # the browser shows it to nobody
    assert ask("POST", "/nowhere", Host=SELF).status_code == 404  # no browser
    assert ask("POST", "/nowhere", api_keys=("key",), Host=SELF, Origin=origin).status_code == 404
    assert ask("POST", "/nowhere", port=None, Host="sabiyarn", Origin=origin).status_code == 404


def ask(
    method: str, path: str, *, api_keys: tuple[str, ...] = (), port: int | None = 8080, **headers: str
) -> httpx.Response:
    """Ask a server without models in this process; without a port it listens on a Unix socket."""
    settings = Settings(
        **{"parallel": 1, "max_queue": 1, "timeout": 1, "api_keys": api_keys},
        **{"cors_origins": ("https://app.example",), "allowed_hosts": ("pi.lan",)},
    )
    service = Service([], dict, settings)
    service.state = "ready"
    app = make_app(service, logs=False)

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "server": ("/run/socket" if port is None else "127.0.0.1", port)}, receive, send)

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(listening)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(run())


def test_one_line_for_each_request(server: Server) -> None:
    before = len(server.lines)
    server.post("/v1/completions", json={"prompt": "secret words", "max_tokens": 3})
    server.post("/v1/completions", json={"prompt": ["secret words", 3]})
    server.post("/v1/completions", json={"prompt": "secret words", "n": "secret"})
    server.get("/v1/models/a%0Ab")
    server.get("/health")
    wait_until(lambda: len(server.lines) >= before + 4)
    first, second, third, fourth = server.lines[before:]
    assert " POST /v1/completions 200 " in first
    assert " model=tiny prompt=12 cached=" in first and " generated=3 " in first and "finish=length" in first
    assert " 400 " in second and " 400 " in third and " 404 " in fourth
    assert "secret words" not in first + second + third
    assert "/v1/models/a\\nb 404" in fourth


def test_prompts_are_logged_when_asked_for(guarded: Server) -> None:
    guarded.client(api_key="first-key").completions.create(model="tiny", prompt="jọ̀ọ́ \n a", max_tokens=1)
    wait_until(lambda: "jọ̀ọ́" in guarded.log)
    [line] = [line for line in guarded.lines if "jọ̀ọ́" in line]
    assert " 200 " in line
