"""The folder of an export: complete or absent, whatever happens while it is filled."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from sabiyarn_edge.errors import ExportError
from sabiyarn_edge.export.target_folder import check_target, target_folder


def write_model(folder: Path, mark: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"sabiyarn_edge": {}, "mark": mark}))


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with target_folder(out) as partial:
        write_model(partial, "new")
        assert partial.parent == tmp_path  # on the same disk, so that the last step is a rename
        assert not out.exists()
    assert entries(tmp_path) == ["model"]
    assert entries(out) == ["config.json"]


@pytest.mark.parametrize(
    "failure",
    [ExportError("no"), ValueError("no"), KeyboardInterrupt(), SystemExit(1)],
    ids=lambda e: type(e).__name__,
)
def test_any_failure_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    out = tmp_path / "made" / "for" / "model"
    with pytest.raises(type(failure)), target_folder(out) as partial:
        write_model(partial, "new")
        raise failure
    assert entries(tmp_path) == []


@pytest.mark.parametrize("failure", [ExportError("no"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_a_failed_replacement_leaves_the_old_one(tmp_path: Path, failure: BaseException) -> None:
    out = tmp_path / "model"
    write_model(out, "old")
    with pytest.raises(type(failure)), target_folder(out) as partial:
        write_model(partial, "new")
        raise failure
    assert json.loads((out / "config.json").read_text())["mark"] == "old"
    assert entries(tmp_path) == ["model"]


def test_replacement(tmp_path: Path) -> None:
    out = tmp_path / "model"
    write_model(out, "old")
    (out / "only-in-old").touch()
    with target_folder(out) as partial:
        write_model(partial, "new")
        assert json.loads((out / "config.json").read_text())["mark"] == "old"  # to the very end
    assert json.loads((out / "config.json").read_text())["mark"] == "new"
    assert entries(out) == ["config.json"]
    assert entries(tmp_path) == ["model"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    write_model(tmp_path / "disk" / "model", "old")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "model")
    with target_folder(link) as partial:
        write_model(partial, "new")
    assert link.is_symlink()
    assert json.loads((tmp_path / "disk" / "model" / "config.json").read_text())["mark"] == "new"


def test_full_disk(tmp_path: Path) -> None:
    """A real one, where a small file system can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if (
        not hasattr(os, "geteuid")
        or os.geteuid() != 0
        or subprocess.run(mount, capture_output=True).returncode != 0
    ):
        pytest.skip("mounting a file system is not allowed here")
    try:
        with (
            pytest.raises(ExportError, match=r"disk became full .* nothing was left"),
            target_folder(disk / "model") as partial,
        ):
            (partial / "weights.bin").write_bytes(bytes(100_000))
        assert entries(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "disk became full"),
        (errno.EDQUOT, "disk became full"),
        (errno.EROFS, "cannot write .*model: Read-only file system"),
    ],
)
def test_errors_of_the_system_are_named(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(ExportError, match=message), target_folder(tmp_path / "model"):
        raise OSError(number, os.strerror(number))
    assert entries(tmp_path) == []


def test_a_file_cannot_hold_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"file is not a folder, so .*model cannot be made"):
        check_target(tmp_path / "file" / "made" / "model", None, force=True)


def test_what_may_be_written(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "old")
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "new", None, force=False)
    check_target(tmp_path / "empty", None, force=False)
    check_target(tmp_path / "model", None, force=True)


def test_an_existing_export_needs_force(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "old")
    with pytest.raises(ExportError, match=r"model exists already.*--force"):
        check_target(tmp_path / "model", None, force=False)


def test_force_replaces_nothing_but_exports(tmp_path: Path) -> None:
    """`--force` and a slip of the keyboard must not delete a home folder, or the checkpoint itself."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "diary.txt").touch()
    with pytest.raises(ExportError, match="home exists and is not an exported model"):
        check_target(tmp_path / "home", None, force=True)
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="file exists and is not a folder"):
        check_target(tmp_path / "file", None, force=True)
    write_model(tmp_path / "model", "old")
    (tmp_path / "model" / "checkpoint").mkdir()
    with pytest.raises(ExportError, match=r"holds the checkpoint .* itself"):
        check_target(tmp_path / "model", tmp_path / "model" / "checkpoint", force=True)
