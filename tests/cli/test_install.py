from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.cli import main
from sabiyarn_edge.generator import find_model
from tests.jobs.test_resume import no_file_larger_than


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_model("nano"), tmp_path / "new"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_is_replaced_under_a_generator_that_runs_the_old_one(model: Path, tmp_path: Path) -> None:
    dest = tmp_path / "models" / "yor"
    dest.parent.mkdir()
    assert main(["install", str(model), str(dest)]) == 0
    assert files(dest) == files(model)
    generator = EdgeGenerator.from_pretrained(dest, num_threads=1)
    expected = generator.generate([5, 6], max_new_tokens=3).generated
    (model / "README.md").write_text("another", encoding="utf-8")
    assert main(["install", str(model), str(dest)]) == 0
    assert files(dest) == files(model)
    generator.free_kv_cache()
    assert (
        generator.generate([5, 6], max_new_tokens=3).generated == expected
    )  # its mapped weights are still there
    assert [path.name for path in dest.parent.iterdir()] == ["yor"]


@pytest.mark.parametrize("name", ["weights.bin", "decoder.onnx", "config.json"])
def test_a_damaged_model_replaces_nothing(
    model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "dest"
    assert main(["install", "nano", str(dest)]) == 0
    before = files(dest)
    content = bytearray((model / name).read_bytes())
    content[-1] ^= 1
    (model / name).write_bytes(content)
    assert main(["install", str(model), str(dest)]) == 1
    assert str(model / name) in capsys.readouterr().err
    assert files(dest) == before
    assert {path.name for path in tmp_path.iterdir()} == {"dest", "new"}


def test_links_to_files_are_copied_and_links_to_folders_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "weights.bin").rename(tmp_path / "weights.bin")
    (model / "weights.bin").symlink_to(tmp_path / "weights.bin")
    said = f"{model / 'weights.bin'} at {tmp_path / 'weights.bin'}, but onnxruntime reads weights from the graph's"
    for command in (["generate", "a", "--model", str(model)], ["doctor", str(model)]):
        assert main(command) == 1
        told = capsys.readouterr()
        assert said in told.out + told.err
    assert main(["install", str(model), str(tmp_path / "dest")]) == 0
    assert main(["generate", "a", "--max-new-tokens", "1", "--model", str(tmp_path / "dest")]) == 0
    (model / "more").symlink_to(tmp_path / "dest")
    assert main(["install", str(model), str(tmp_path / "other")]) == 2
    assert f"{model / 'more'} is a link to a folder" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_written_is_said_in_a_sentence(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "dest"
    assert main(["install", "nano", str(dest)]) == 0
    before = files(dest)
    with no_file_larger_than(2**12):  # the error of a full disk but for its number
        assert main(["install", str(model), str(dest)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"sabiyarn-edge: error: cannot copy the model to {dest}: File too large (")
    assert err.endswith("). It is as it was.\n")

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    assert main(["install", str(model), str(dest)]) == 1
    assert capsys.readouterr().err == (
        f"sabiyarn-edge: error: the disk became full while {dest} was written, which is as it was. Free some space.\n"
    )
    assert main(["install", str(model), str(tmp_path / "no" / "folder")]) == 1
    assert "folder: No such file or directory (" in capsys.readouterr().err
    assert files(dest) == before
    assert {path.name for path in tmp_path.iterdir()} == {"dest", "new"}


def test_what_is_no_model_is_not_replaced(model: Path, tmp_path: Path) -> None:
    for dest in (tmp_path / "texts", model, model / "inside", tmp_path):
        if dest.name == "texts":
            dest.mkdir()
            (dest / "thesis.txt").touch()
        assert main(["install", str(model), str(dest)]) == 2
    assert (tmp_path / "texts" / "thesis.txt").exists()
