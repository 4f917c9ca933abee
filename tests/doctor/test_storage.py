"""Cache folders that can and cannot be used."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from sabiyarn_edge.doctor import storage
from sabiyarn_edge.doctor.storage import examine_cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_folder_with_room(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=2**30)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: usage)
    cache.mkdir()
    (cache / "entry").write_bytes(bytes(1000))
    found = examine_cache()
    assert found.status == "ok"
    assert found.text == f"{cache}, 0 MiB used, 1024 MiB free on its disk"
    assert found.facts["used"] == 1000
    assert [path.name for path in cache.iterdir()] == ["entry"]  # nothing is left of the try


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=100 * 2**20)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: usage)
    found = examine_cache()
    assert found.status == "warning"
    assert "Free some space" in found.remedy


def test_a_folder_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(storage.tempfile, "TemporaryFile", refuse)
    found = examine_cache()
    assert found.status == "warning"
    assert "Read-only file system" in found.text
    assert "SABIYARN_EDGE_CACHE" in found.remedy


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", str(tmp_path / "file" / "cache"))
    found = examine_cache()
    assert found.status == "warning"
    assert "Not a directory" in found.text


def test_a_folder_of_a_stranger(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sabiyarn_edge.model_folder.cache_folder.why_not_trusted", lambda path: "which belongs to user id 7"
    )
    found = examine_cache()
    assert found.status == "problem"
    assert "user id 7" in found.text


def test_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", "off")
    assert examine_cache().status == "warning"
