"""sabiyarn-edge pack: packed weights ahead of the first run, and one copy of the model's bytes on disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.export.models import SHAPES, export_tiny


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("pack"), SHAPES["wide"], dtype="float32", verify=False).folder


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def counts_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sabiyarn_edge.engine.decoder.MIN_WEIGHTS_BYTES", 1000)


def identity(model: Path) -> tuple[int, int]:
    found = (model / "weights.bin").stat()
    return found.st_ino, found.st_ctime_ns


def test_a_small_model_needs_none(run, model, cache):
    ran = run("pack", model)
    assert (ran.code, ran.err) == (0, "")
    assert "needs no packing ahead" in ran.out
    assert "below 32 are packed whenever" in ran.out
    assert not cache.exists()


@pytest.mark.usefixtures("counts_as_large")
def test_matrices_of_few_bits_need_none(run, tmp_path, cache):
    folder = export_tiny(tmp_path / "int8", SHAPES["wide"], dtype="int8", verify=False).folder
    ran = run("pack", folder)
    assert (ran.code, ran.err) == (0, "")
    assert "int8 weights are used as they lie in weights.bin" in ran.out
    assert not cache.exists()


@pytest.mark.usefixtures("counts_as_large")
def test_both_graphs_are_packed(run, model, cache):
    before = identity(model)
    ran = run("pack", model)
    assert (ran.code, ran.err) == (0, "")
    assert str(cache) in ran.out
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2
    assert identity(model) == before


@pytest.mark.usefixtures("counts_as_large")
def test_replace_leaves_one_file(run, model, cache):
    ran = run("pack", model, "--replace")
    assert (ran.code, ran.err) == (0, "")
    files = [model / "weights.bin", *cache.glob("*/weights.bin")]
    assert len(files) == 3
    assert len({path.stat().st_ino for path in files}) == 1
    total = sum(
        {path.stat().st_ino: path.stat().st_size for path in [*model.iterdir(), *cache.glob("*/*")]}.values()
    )
    assert re.search(rf": {total / 2**20:.0f} MiB of disk", ran.out)
    shown = run("info", model).out
    assert "of them packed" in shown


@pytest.mark.usefixtures("counts_as_large")
def test_folders_that_cannot_share_a_file(run, model, cache, monkeypatch):
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self), None, str(target))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    before = identity(model)
    error = run("pack", model, "--replace").error
    assert f"{model / 'weights.bin'} is as it was" in error
    assert "SABIYARN_EDGE_CACHE can name another cache folder" in error
    assert identity(model) == before
    assert list(cache.glob("*/weights.bin"))


@pytest.mark.usefixtures("counts_as_large")
def test_no_place_to_keep_them(run, model, monkeypatch):
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", "off")
    ran = run("pack", model)
    assert ran.code == 2
    assert "SABIYARN_EDGE_CACHE is off" in ran.error


@pytest.mark.usefixtures("counts_as_large")
def test_a_full_disk_is_an_error(run, model, monkeypatch):
    monkeypatch.setattr(
        "sabiyarn_edge.model_folder.weight_cache.shutil.disk_usage",
        lambda path: shutil._ntuple_diskusage(1, 1, 0),
    )
    ran = run("pack", model)
    assert ran.code == 1
    assert "0 MiB are free" in ran.error
