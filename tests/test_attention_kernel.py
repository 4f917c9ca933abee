"""Sessions on an int8 cache are made with the kernel that suits it, and nothing else of the process changes."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from sabiyarn_edge.attention_kernel import VARIABLE, attention_kernel
from sabiyarn_edge.errors import ModelFolderError
from sabiyarn_edge.session import DecoderSession
from tests.export.models import accept_graphs, export_tiny


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What onnxruntime finds in VARIABLE while it makes sessions."""
    found: list[str | None] = []
    make = onnxruntime.InferenceSession

    def record(*args: Any, **kwargs: Any) -> Any:
        found.append(os.environ.get(VARIABLE))
        return make(*args, **kwargs)

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    return found


@pytest.mark.parametrize(
    ("kv_cache_dtype", "expected"), [("int8", "1"), ("float16", None), ("float32", None)]
)
def test_sessions_on_int8_keep_scores(
    tmp_path: Path, seen: list[str | None], kv_cache_dtype: str, expected: str | None
) -> None:
    folder = export_tiny(tmp_path / "model", {}, kv_cache_dtype=kv_cache_dtype).folder
    seen.clear()  # of the export's own sessions
    DecoderSession(folder)
    assert seen == [expected]
    assert VARIABLE not in os.environ


def test_the_users_choice_stays(
    tmp_path: Path, seen: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    folder = export_tiny(tmp_path / "model", {}, kv_cache_dtype="int8").folder
    seen.clear()
    DecoderSession(folder)
    assert seen == ["0"]
    assert os.environ[VARIABLE] == "0"


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export_tiny(tmp_path / "model", {}, kv_cache_dtype="int8").folder
    monkeypatch.delenv(VARIABLE, raising=False)
    (folder / "decoder.onnx").write_bytes(b"no graph")
    accept_graphs(folder)
    with pytest.raises(ModelFolderError, match=r"onnxruntime cannot load .*decoder\.onnx"):
        DecoderSession(folder)
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("other", ["int8", "float16"])
def test_threads_that_load_at_once_do_not_see_each_others_choice(
    monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    found: list[str | None] = []

    def load() -> None:
        with attention_kernel(other):
            found.append(os.environ.get(VARIABLE))

    thread = threading.Thread(target=load)
    with attention_kernel("int8"):
        thread.start()
        thread.join(0.1)  # seconds; without the lock it is inside long before
        assert found == []
        assert os.environ[VARIABLE] == "1"
    thread.join()
    assert found == ["1" if other == "int8" else None]
    assert VARIABLE not in os.environ
