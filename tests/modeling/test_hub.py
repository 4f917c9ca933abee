"""Where a checkpoint comes from; the hub is played by a function, tests download nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from sabiyarn_edge.errors import CheckpointError
from sabiyarn_edge.export import export_model
from sabiyarn_edge.modeling import GPTJXForCausalLM
from sabiyarn_edge.modeling.hub import locate_checkpoint
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint


class FakeHub:
    """snapshot_download() that "downloads" from folders of this machine."""

    def __init__(self, cache: Path, **repositories: Path) -> None:
        self.cache, self.repositories, self.calls = cache, repositories, []

    def __call__(self, repo_id, *, revision=None, allow_patterns):
        self.calls.append((repo_id, revision))
        target = self.cache / repo_id
        target.mkdir(parents=True, exist_ok=True)
        for pattern in allow_patterns:
            for path in self.repositories[repo_id.split("/")[1]].glob(pattern):
                (target / path.name).write_bytes(path.read_bytes())
        return str(target)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder, and without the real hub."""
    monkeypatch.chdir(tmp_path)

    def unreachable(*_, **__):
        raise LocalEntryNotFoundError("Cannot reach the hub.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)


@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin", "sharded-bin"])
def test_a_hub_id_is_fetched(tmp_path, monkeypatch, layout):
    source = make_tiny_checkpoint(tmp_path / "remote", layout=layout)
    (source / "training.log").write_text("not needed")
    hub = FakeHub(tmp_path / "cache", tiny=source)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    model = GPTJXForCausalLM.from_pretrained("owner/tiny", revision="v2")
    assert model.config.n_embd == 16
    assert set(hub.calls) == {("owner/tiny", "v2")}
    assert not (tmp_path / "cache/owner/tiny/training.log").exists()


def test_pickles_are_fetched_only_without_safetensors(tmp_path, monkeypatch):
    source = make_tiny_checkpoint(tmp_path / "remote", layout="safetensors")
    make_tiny_checkpoint(source, layout="bin")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", FakeHub(tmp_path / "cache", tiny=source))
    folder = locate_checkpoint("owner/tiny")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_goes_before_the_hub(tmp_path):
    make_tiny_checkpoint(tmp_path / "owner/tiny")
    assert locate_checkpoint("owner/tiny") == Path("owner/tiny")
    assert locate_checkpoint(tmp_path / "owner/tiny") == tmp_path / "owner/tiny"


def test_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_tiny_checkpoint(tmp_path / "tiny")
    assert locate_checkpoint("~/tiny") == tmp_path / "tiny"


def test_the_home_of_nobody_is_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="neither a folder nor a hub id"):
        locate_checkpoint("~no.such.user/tiny")
    with pytest.raises(CheckpointError, match="neither a folder nor a hub id"):
        export_model("~no.such.user/tiny", tmp_path / "out", progress=False)


@pytest.mark.parametrize("source", ["nano", "a/b/c", "./a/b", "/a/b", "a b/c", "https://huggingface.co/a/b"])
def test_neither_a_folder_nor_a_hub_id(source):
    with pytest.raises(CheckpointError, match="neither a folder nor a hub id"):
        locate_checkpoint(source)


def test_paths_are_never_hub_ids():
    with pytest.raises(CheckpointError, match="neither a folder nor a hub id"):
        locate_checkpoint(Path("owner/tiny"))


def test_a_file(tmp_path):
    file = make_tiny_checkpoint(tmp_path / "tiny") / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"is a file\. Give the folder"):
        locate_checkpoint(file)


def test_an_unreachable_hub():
    with pytest.raises(
        CheckpointError, match=r"no folder owner/tiny, and the hub did not give it: Cannot reach"
    ):
        locate_checkpoint("owner/tiny")


def test_an_id_that_the_hub_refuses(monkeypatch):
    def refuse(*_, **__):
        raise HFValidationError("Repo id must not end with -.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match="must not end with -"):
        locate_checkpoint("owner/tiny-")


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"needs huggingface_hub.*pip install"):
        locate_checkpoint("owner/tiny")
