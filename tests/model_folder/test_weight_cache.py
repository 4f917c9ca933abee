"""Packed weights on disk: same numbers as without, shared, and made anew or done without whenever anything is wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import sabiyarn_edge.model_folder.weight_cache as weight_cache
from sabiyarn_edge import EdgeGenerator, WeightCacheWarning
from sabiyarn_edge.calls.attention_masks import PromptMask
from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.errors import InvalidInputError, ModelFolderError
from sabiyarn_edge.model_folder.cache_folder import locked
from sabiyarn_edge.model_folder.config import ModelConfig
from sabiyarn_edge.model_folder.weights_file import hash_weights_file
from tests.export.models import SHAPES, export_tiny

PROMPT = [5, 77, 301, 2, 9]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(scope="module", params=["float32", "float16-weights"])
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("any"), request.param)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose matrices onnxruntime packs."""
    return export(tmp_path_factory.mktemp("packed"), "float32")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packed weights go in these tests; does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", str(folder))
    return folder


def export(folder: Path, dtype: str) -> Path:
    return export_tiny(folder, SHAPES["wide"], dtype=dtype, verify=False).folder


def logits(folder: Path, *, use_cache: bool = True) -> np.ndarray:
    """Logits [vocab] of PROMPT's last token: equal bits mean equal weights in equal kernels."""
    session = Decoder(folder, num_threads=1, weight_cache=use_cache)
    session.prefill([PROMPT])
    return session.runner.logits(1).copy()


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def the_entry(cache: Path) -> Path:
    (entry,) = entries(cache)
    return entry


def identity(entry: Path) -> tuple[int, int]:
    found = (entry / "weights.bin").stat()
    return found.st_ino, found.st_mtime_ns


def test_logits_are_the_same_bits(any_model: Path, cache: Path) -> None:
    expected = logits(any_model, use_cache=False)
    assert not cache.exists()
    np.testing.assert_array_equal(logits(any_model), expected)  # makes the entry
    before = identity(the_entry(cache))
    np.testing.assert_array_equal(logits(any_model), expected)  # uses it
    assert identity(the_entry(cache)) == before


@linux
def test_packed_weights_are_mapped_and_not_held(any_model: Path, cache: Path) -> None:
    Decoder(any_model, num_threads=1, weight_cache=True)
    loaded = Decoder(any_model, num_threads=1, weight_cache=True)
    weights = the_entry(cache) / "weights.bin"
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(weights) in line]
    packed_from = (any_model / "weights.bin").stat().st_size
    offsets = [int(line.split()[2], 16) for line in mapped]
    assert loaded.providers and any(offset >= packed_from for offset in offsets)


def test_what_is_small_is_cached_only_when_asked(model: Path, cache: Path) -> None:
    EdgeGenerator.from_pretrained(model)
    assert not cache.exists()
    EdgeGenerator.from_pretrained(model, weight_cache=True)
    assert entries(cache)


def test_what_is_large_is_cached_unless_told_not_to(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sabiyarn_edge.engine.decoder.MIN_WEIGHTS_BYTES", 1000)
    EdgeGenerator.from_pretrained(model, weight_cache=False)
    assert not cache.exists()
    EdgeGenerator.from_pretrained(model)
    assert entries(cache)


def test_off_in_the_variable_turns_it_off(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", "off")
    monkeypatch.setattr(weight_cache, "_Entry", None)  # would fail if anything were to be cached
    logits(model)


def test_the_entry_takes_the_model_and_its_packed_matrices_once(model: Path, cache: Path) -> None:
    logits(model)
    assert sorted(path.name for path in the_entry(cache).iterdir()) == [
        "decoder.onnx",
        "entry.json",
        "weights.bin",
    ]
    plain = (model / "weights.bin").stat().st_size
    cached = (the_entry(cache) / "weights.bin").stat().st_size
    assert plain < cached < 2.3 * plain  # tiny matrices are padded more than large ones: those take 2.0


def test_making_takes_no_more_disk_than_is_asked_for(
    any_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, seen = weight_cache._append, []

    def append_and_look(*args: Any) -> int:
        place = append(*args)
        seen.append(sum(path.stat().st_size for path in cache.rglob("*")))
        return place

    monkeypatch.setattr(weight_cache, "_append", append_and_look)
    logits(any_model)
    entry, needed = weight_cache._space(any_model / "decoder.onnx", any_model / "weights.bin")
    assert max(seen) <= needed < 1.6 * max(seen)  # the largest matrix is a third of this model
    whole = (the_entry(cache) / "weights.bin").stat().st_size
    assert entry == pytest.approx(whole, rel=0.1)  # tiny matrices are padded more than large ones


def flip_byte_of_plain_weights(entry: Path) -> None:
    flip(entry / "weights.bin", 70_000)


def flip_byte_of_packed_weights(entry: Path) -> None:
    flip(entry / "weights.bin", (entry / "weights.bin").stat().st_size - 40_000)


def flip_byte_of_graph(entry: Path) -> None:
    flip(entry / "decoder.onnx", 2000)


def flip_and_restore_time(entry: Path) -> None:
    times = (entry / "weights.bin").stat()
    flip_byte_of_plain_weights(entry)
    os.utime(entry / "weights.bin", ns=(times.st_atime_ns, times.st_mtime_ns))


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


def truncate(entry: Path) -> None:
    os.truncate(entry / "weights.bin", 100_000)


def empty_the_weights(entry: Path) -> None:
    os.truncate(entry / "weights.bin", 0)


def remove_the_weights(entry: Path) -> None:
    (entry / "weights.bin").unlink()


def break_the_record(entry: Path) -> None:
    (entry / "entry.json").write_text('{"key": ', encoding="utf-8")


def make_the_record_a_list(entry: Path) -> None:
    (entry / "entry.json").write_text("[]", encoding="utf-8")


def put_a_file_in_its_place(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_text("not a folder")


DAMAGES: list[Callable[[Path], None]] = [
    flip_byte_of_plain_weights,
    flip_byte_of_packed_weights,
    flip_byte_of_graph,
    flip_and_restore_time,
    truncate,
    empty_the_weights,
    remove_the_weights,
    break_the_record,
    make_the_record_a_list,
    put_a_file_in_its_place,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_made_anew(model: Path, cache: Path, damage: Callable[[Path], None]) -> None:
    expected = logits(model)
    whole = (the_entry(cache) / "weights.bin").read_bytes()
    damage(the_entry(cache))
    np.testing.assert_array_equal(logits(model), expected)
    assert (the_entry(cache) / "weights.bin").read_bytes() == whole


def test_what_only_onnxruntime_notices_is_made_anew(model: Path, cache: Path) -> None:
    """A record that vouches for damaged packed bytes: onnxruntime compares them and refuses."""
    expected = logits(model)
    entry = the_entry(cache)
    whole = (entry / "weights.bin").read_bytes()
    flip_byte_of_packed_weights(entry)
    record = json.loads((entry / "entry.json").read_text())
    found = (entry / "weights.bin").stat()
    record["files"]["weights.bin"]["times"] = [found.st_mtime_ns, found.st_ctime_ns]
    (entry / "entry.json").write_text(json.dumps(record))
    np.testing.assert_array_equal(logits(model), expected)
    assert (the_entry(cache) / "weights.bin").read_bytes() == whole


def test_a_copied_entry_is_checked_once_and_kept(model: Path, cache: Path) -> None:
    expected = logits(model)
    os.utime(the_entry(cache) / "weights.bin", ns=(1, 1))
    before = identity(the_entry(cache))
    np.testing.assert_array_equal(logits(model), expected)
    assert identity(the_entry(cache)) == before
    record = json.loads((the_entry(cache) / "entry.json").read_text())
    assert record["files"]["weights.bin"]["times"][0] == 1  # not hashed again next time


def test_another_onnxruntime_replaces_the_entry(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(model)
    first = the_entry(cache)
    monkeypatch.setattr(onnxruntime, "__version__", "99.0.0")
    logits(model)
    assert the_entry(cache) != first


def test_another_cpu_has_an_entry_of_its_own(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(model)
    monkeypatch.setattr(weight_cache, "describe_cpu", lambda: "another machine with the same home folder")
    logits(model)
    assert len(entries(cache)) == 2


def test_exporting_again_replaces_the_entry(tmp_path: Path, cache: Path) -> None:
    logits(export(tmp_path, "float32"))
    first = the_entry(cache)
    shutil.rmtree(tmp_path / "model")
    folder = export_tiny(
        tmp_path, {**SHAPES["wide"], "vocab_size": 997}, dtype="float32", verify=False
    ).folder
    np.testing.assert_array_equal(logits(folder), logits(folder, use_cache=False))
    assert the_entry(cache) != first


def test_the_masked_graph_has_an_entry_and_the_same_packed_bytes(model: Path, cache: Path) -> None:
    def masked_logits(*, use_cache: bool) -> np.ndarray:
        session = Decoder(model, num_threads=1, weight_cache=use_cache)
        mask = PromptMask(len(PROMPT), np.tril(np.ones((len(PROMPT), len(PROMPT)), bool)))
        session.prefill_masked([PROMPT], [mask])
        return session.masked_runner._logits.copy()

    expected = masked_logits(use_cache=False)
    assert not cache.exists()
    for _ in range(2):  # makes both entries, and uses them
        np.testing.assert_array_equal(masked_logits(use_cache=True), expected)
        assert len(entries(cache)) == 2
    one, other = (identity(entry) for entry in entries(cache))
    assert one == other


def test_without_links_each_graph_has_its_own_file(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    session = Decoder(model, num_threads=1, weight_cache=True)
    assert session.masked_runner
    one, other = (identity(entry) for entry in entries(cache))
    assert one != other


def test_making_one_graph_anew_leaves_the_others_entry(model: Path, cache: Path) -> None:
    session = Decoder(model, num_threads=1, weight_cache=True)
    first = the_entry(cache)
    assert session.masked_runner
    (second,) = set(entries(cache)) - {first}
    break_the_record(first)
    logits(model)
    assert entries(cache) == sorted([first, second])


def disk_of(*folders: Path) -> int:
    found = [path.stat() for folder in folders for path in folder.rglob("*") if path.name == "weights.bin"]
    return sum({status.st_ino: status.st_size for status in found}.values())


def replace(model: Path) -> None:
    config = ModelConfig.load(model)
    weight_cache.replace_weights(model / "decoder.onnx", model / "weights.bin", config.weights_hash)


@pytest.fixture
def own_model(model: Path, tmp_path: Path) -> Path:
    """A copy of the model, for tests that change it."""
    return Path(shutil.copytree(model, tmp_path / "model"))


def test_the_models_file_can_be_the_packed_one(own_model: Path, cache: Path) -> None:
    weights = own_model / "weights.bin"
    plain = weights.read_bytes()
    expected = logits(own_model)
    packed = (the_entry(cache) / "weights.bin").stat().st_size
    assert disk_of(own_model, cache) == len(plain) + packed
    replace(own_model)
    assert disk_of(own_model, cache) == packed
    assert weights.samefile(the_entry(cache) / "weights.bin")
    assert weights.read_bytes()[: len(plain)] == plain
    assert hash_weights_file(weights) == ModelConfig.load(own_model).weights_hash
    np.testing.assert_array_equal(logits(own_model), expected)
    np.testing.assert_array_equal(logits(own_model, use_cache=False), expected)
    replace(own_model)  # once more changes nothing
    assert sorted(path.name for path in own_model.iterdir() if path.name.startswith(".")) == []


def test_after_it_was_replaced_nothing_is_read_again(
    own_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(own_model)
    replace(own_model)

    def refuse(path: Path) -> str:
        raise AssertionError(f"hashed {path}")

    monkeypatch.setattr(weight_cache, "_hash", refuse)
    logits(own_model)


def test_a_replaced_file_is_replaced_again_by_a_new_entry(
    own_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = logits(own_model)
    replace(own_model)
    size = (own_model / "weights.bin").stat().st_size
    monkeypatch.setattr(onnxruntime, "__version__", "99.0.0")
    np.testing.assert_array_equal(logits(own_model), expected)
    assert (own_model / "weights.bin").samefile(the_entry(cache) / "weights.bin")
    assert (own_model / "weights.bin").stat().st_size == size  # what was packed before is not carried along


def test_a_copy_of_a_replaced_model_works_elsewhere(own_model: Path, cache: Path, tmp_path: Path) -> None:
    expected = logits(own_model)
    replace(own_model)
    copied = Path(shutil.copytree(own_model, tmp_path / "copied"))
    shutil.rmtree(cache)
    np.testing.assert_array_equal(logits(copied), expected)
    assert (copied / "weights.bin").samefile(the_entry(cache) / "weights.bin")


def test_others_can_read_a_replaced_file_as_before_but_not_write_it(own_model: Path) -> None:
    weights = own_model / "weights.bin"
    weights.chmod(0o664)
    logits(own_model)
    replace(own_model)
    assert weights.stat().st_mode & 0o777 == 0o644


def test_a_link_in_the_models_folder_is_not_replaced(own_model: Path, tmp_path: Path) -> None:
    """A download from the hub: each file is a link into a folder of blobs."""
    blobs = own_model.rename(tmp_path / "blobs")
    own_model.mkdir()
    for blob in blobs.iterdir():
        (own_model / blob.name).symlink_to(blob)
    logits(own_model)
    with pytest.raises(OSError, match="symbolic link"):
        replace(own_model)
    assert (own_model / "weights.bin").is_symlink()


def test_another_users_file_is_not_replaced(own_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits(own_model)
    before = identity(own_model)
    found = os.geteuid()
    monkeypatch.setattr("sabiyarn_edge.model_folder.weight_cache.os.geteuid", lambda: found + 1)
    monkeypatch.setattr(weight_cache, "cache_folder", lambda: own_model.parent / "cache")
    with pytest.raises(PermissionError, match=f"belongs to user id {found}"):
        replace(own_model)
    assert identity(own_model) == before


@pytest.mark.parametrize("missing", [True, False], ids=["none", "damaged"])
def test_only_a_whole_entry_replaces_the_models_file(own_model: Path, cache: Path, missing: bool) -> None:
    logits(own_model)
    before = identity(own_model)
    if missing:
        shutil.rmtree(cache)
    else:
        flip_byte_of_plain_weights(the_entry(cache))
    with pytest.raises(OSError, match="not there"):
        replace(own_model)
    assert identity(own_model) == before


def test_what_a_dead_maker_left_is_removed(model: Path, cache: Path) -> None:
    logits(model)
    entry = the_entry(cache)
    leftovers = [cache / f".{name}.0123abcd.partial" for name in (entry.name, "another-model")]
    for leftover in leftovers:
        leftover.mkdir()
    break_the_record(entry)
    logits(model)
    assert not any(leftover.exists() for leftover in leftovers)


CHILD = """
import sys
from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.model_folder.weights_file import hash_weights_file
print("ready", flush=True)
sys.stdin.readline()
session = Decoder(sys.argv[1], num_threads=1, weight_cache=True)
session.prefill([[5, 77, 301, 2, 9]])
print(session.runner.logits(1).tobytes().hex(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def children(model: Path, cache: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Four processes with all imported, waiting for a line to load the model, and for another to end."""
    command = [sys.executable, "-W", "error", "-c", CHILD, str(model)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    found = [subprocess.Popen(command, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    try:
        for child in found:
            assert child.stdout.readline() == "ready\n"
        yield found
    finally:
        for child in found:
            child.communicate(timeout=60)


def load_all(children: list[subprocess.Popen[str]]) -> list[str]:
    for child in children:
        assert child.stdin is not None
        child.stdin.write("load\n")
        child.stdin.flush()
    answers = []
    for child in children:
        assert child.stdout is not None
        answers.append(child.stdout.readline().strip())
    return answers


def test_processes_that_load_at_once_make_one_entry(
    model: Path, cache: Path, children: list[subprocess.Popen[str]]
) -> None:
    expected = logits(model, use_cache=False).tobytes().hex()
    assert load_all(children) == [expected] * 4
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".lock"]


@linux
def test_processes_share_one_copy(model: Path, cache: Path, children: list[subprocess.Popen[str]]) -> None:
    logits(model)
    assert all(load_all(children))
    weights = the_entry(cache) / "weights.bin"
    sizes = [mapping_sizes(child.pid, str(weights)) for child in children]
    for size in sizes:
        assert size["Rss"] > 0
        assert size["Anonymous"] == 0  # no copy of its own; which pages it maps is the system's choice
    rounding = sum(size["mappings"] for size in sizes) + 4  # each mapping to KiB, and the last page
    assert sum(size["Pss"] for size in sizes) <= weights.stat().st_size / 1024 + rounding


def mapping_sizes(pid: int, path: str) -> dict[str, int]:
    """Sums over a process's mappings of one file, KiB."""
    sums = dict.fromkeys(["Rss", "Pss", "Anonymous", "mappings"], 0)
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            inside = line.endswith(path)
            sums["mappings"] += inside
        elif inside and words[0].rstrip(":") in sums:
            sums[words[0].rstrip(":")] += int(words[1])
    return sums


def assert_falls_back(model: Path, *words: str) -> None:
    """One warning that says each of `words`, and the same logits without the cache."""
    expected = logits(model, use_cache=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = logits(model)
    np.testing.assert_array_equal(found, expected)
    (warning,) = caught
    assert warning.category is WeightCacheWarning
    assert warning.filename == __file__  # points at the caller, not into the package
    for word in (*words, "SABIYARN_EDGE_CACHE", "weight_cache=False", "MiB"):
        assert word in str(warning.message)


def test_a_place_that_cannot_be_made_warns_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SABIYARN_EDGE_CACHE", str(tmp_path / "file" / "cache"))
    assert_falls_back(model, "Not a directory", str(tmp_path / "file"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_warns_once(model: Path, cache: Path) -> None:
    cache.mkdir(mode=0o500)
    assert_falls_back(model, "Permission denied")


def test_a_read_only_filesystem_warns_once(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(cache))

    monkeypatch.setattr("sabiyarn_edge.model_folder.cache_folder.os.open", refuse)
    assert_falls_back(model, "Read-only file system")


def test_an_entry_on_a_read_only_filesystem_is_used(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = logits(model)
    monkeypatch.setattr(weight_cache, "locked", None)  # any attempt to write begins with the lock
    np.testing.assert_array_equal(logits(model), expected)


def test_too_little_space_warns_with_both_numbers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=300 * 2**10)
    monkeypatch.setattr(weight_cache.shutil, "disk_usage", lambda path: usage)
    assert_falls_back(model, "0 MiB are free", "making them takes")


@pytest.mark.parametrize("step", ["_copy", "_append", "atomic_file", "atomic_folder"])
def test_a_disk_that_fills_up_warns_once_and_leaves_nothing(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fill_up(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(weight_cache, step, fill_up)
    assert_falls_back(model, "No space left on device")
    assert entries(cache) == []


def test_onnxruntime_running_out_of_space_warns_once(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Decoder._load

    def fill_up(self: Decoder, graph: Path, entries: object = None, optimized: object = None) -> object:
        if optimized is not None:
            raise ModelFolderError("onnxruntime cannot load: No space left")
        return load(self, graph)

    monkeypatch.setattr(Decoder, "_load", fill_up)
    assert_falls_back(model, "No space left")
    assert entries(cache) == []


def test_a_lock_that_is_never_given_back_warns_once(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(model)
    break_the_record(the_entry(cache))
    monkeypatch.setattr(weight_cache, "_LOCK_SECONDS", 0.1)
    (lock,) = cache.glob("*.lock")
    with locked(lock, timeout=1):
        assert_falls_back(model, "another process has held")


def test_an_entry_of_another_user_is_not_run(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(model)
    name = the_entry(cache).name
    monkeypatch.setattr(
        weight_cache, "why_not_trusted", lambda path: "of a stranger" if path.name == name else ""
    )
    assert_falls_back(model, "of a stranger")


def test_a_named_folder_of_another_user_is_refused(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sabiyarn_edge.model_folder.cache_folder.why_not_trusted", lambda path: "which belongs to user id 7"
    )
    with pytest.raises(InvalidInputError, match="user id 7"):
        logits(model)
