"""Where the cache lies, whom it must belong to, and that one process at a time holds its lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.model_folder.cache_folder import cache_folder, locked, why_not_trusted


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SABIYARN_EDGE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_it_lies_in_the_home_folder(home: Path) -> None:
    assert cache_folder() == home / ".cache/sabiyarn_edge"
    assert (home / ".cache/sabiyarn_edge").stat().st_mode & 0o777 == 0o700


def test_xdg_cache_home_moves_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_folder() == home / "xdg/sabiyarn_edge"


def test_a_relative_xdg_cache_home_is_ignored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == home / ".cache/sabiyarn_edge"


def test_the_variable_names_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", "~/ours")
    assert cache_folder() == home / "ours"


def test_the_home_of_nobody_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", "~no.such.user/ours")
    with pytest.raises(OSError, match="home directory"):
        cache_folder()


@pytest.mark.parametrize("word", ["off", "OFF"])
def test_off_is_no_folder(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", word)
    assert cache_folder() is None


def test_a_folder_that_all_may_write_to_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "open"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", str(folder))
    with pytest.raises(InvalidInputError, match=r"every user may write to \(mode 777\)"):
        cache_folder()
    folder.chmod(0o1777)  # sticky, as /tmp: nobody can replace what is ours
    assert cache_folder() == folder


def test_a_default_folder_that_all_may_write_to_is_an_os_error(home: Path) -> None:
    folder = home / ".cache/sabiyarn_edge"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match=rf"{folder} is a folder which every user"):
        cache_folder()


def test_a_folder_of_another_user_is_distrusted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not_trusted(home) == ""
    if os.geteuid() == 0:
        os.chown(home, 54321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert "belongs to user id" in why_not_trusted(home)
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", str(home))
    with pytest.raises(InvalidInputError, match="belongs to user id"):
        cache_folder()


def test_a_lock_is_held_against_others_and_freed(home: Path) -> None:
    with (
        locked(home / "lock", timeout=1),
        pytest.raises(TimeoutError, match="another process"),
        locked(home / "lock", timeout=0.1),
    ):
        pass
    with locked(home / "lock", timeout=0):
        pass


def test_the_lock_of_a_dead_process_is_free(home: Path) -> None:
    code = (
        "import os, sys; from sabiyarn_edge.model_folder.cache_folder import locked\n"
        "with locked(sys.argv[1], timeout=1): os._exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(home / "lock")]).returncode == 3
    with locked(home / "lock", timeout=0):
        pass
