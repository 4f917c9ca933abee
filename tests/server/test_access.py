"""Keys, other origins, and the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import openai
import pytest

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
    import httpx

    def preflight(origin: str) -> httpx.Response:
        headers = {**asked, "Origin": origin, "Access-Control-Request-Headers": "authorization,content-type"}
        return httpx.options(f"{guarded.url}/v1/completions", headers=headers)

    assert preflight("https://two.example").headers["access-control-allow-origin"] == "https://two.example"
    assert "access-control-allow-origin" not in preflight("https://evil.example").headers


def test_clients_in_a_browser_may_send_their_headers_and_see_when_to_come_again(guarded: Server) -> None:
    """The names are those that OpenAI's package for JavaScript sends."""
    import httpx

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
