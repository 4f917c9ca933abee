"""The header of weights.bin: what it says, and what it finds wrong."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from pathlib import Path

import pytest

from sabiyarn_edge.errors import ModelFolderError
from sabiyarn_edge.model_folder.weights_file import ALIGNMENT, StoredTensor, WeightsHeader, hash_weights_file

DATA = bytes(range(200))


@pytest.fixture
def header() -> WeightsHeader:
    """Of a file with one tensor, hashed here by hand, as the format says."""
    line = b'["a", "float16", [4, 25]]\n'
    weights_hash = hashlib.sha256(line + DATA + b"inline\n").hexdigest()
    return WeightsHeader(1, weights_hash, "inline", {"a": StoredTensor("float16", (4, 25), ALIGNMENT, 200)})


@pytest.fixture
def path(tmp_path: Path, header: WeightsHeader) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(header.to_bytes() + DATA)
    return path


def test_layout_of_the_header(path: Path) -> None:
    raw = path.read_bytes()
    assert raw[:8] == b"SYEDGE01"
    length = int.from_bytes(raw[8:12], "little")
    assert json.loads(raw[12 : 12 + length])["tensors"]["a"] == {
        "dtype": "float16",
        "shape": [4, 25],
        "offset": 65536,
        "nbytes": 200,
    }
    assert raw[12 + length : 65536] == bytes(65536 - 12 - length)


def test_read_gives_what_was_written(path: Path, header: WeightsHeader) -> None:
    assert WeightsHeader.read(path) == header


def test_header_of_many_tensors_takes_more_pages() -> None:
    tensors = {f"tensor.{i:05d}": StoredTensor("float32", (1,), i, 4) for i in range(2000)}
    raw = WeightsHeader(1, "", "", tensors).to_bytes()
    assert len(raw) % ALIGNMENT == 0
    assert len(raw) > ALIGNMENT


def test_hash_is_that_of_the_bytes(path: Path, header: WeightsHeader) -> None:
    assert hash_weights_file(path) == header.weights_hash


def test_hash_shows_a_flipped_bit(path: Path, header: WeightsHeader) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert hash_weights_file(path) != header.weights_hash


def test_a_disk_that_fails_while_it_is_read_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def failing(self: Path, mode: str) -> io.BufferedReader:
        file = real(self, mode)
        monkeypatch.setattr(Path, "open", lambda *_: _FailingFile())  # the second time, for the tensors
        return file

    class _FailingFile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(ModelFolderError, match=r"cannot read .*weights\.bin: Input/output error"):
        hash_weights_file(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1], "truncated: it has 65735 bytes, and its header asks for 65736"),
        (lambda raw: raw[:100], "truncated: it has 100 bytes"),
        (lambda raw: raw[:10], "truncated: it has 10 bytes, and a header begins with 12"),
        (lambda raw: raw[:3], "truncated: it has 3 bytes"),
        (lambda raw: b"", "is not a weights file"),
        (lambda raw: b"GGUF" + raw[4:], "begins with b'GGUFGE01'"),
        (lambda raw: raw[:12] + b"?" + raw[13:], "header of .* is damaged"),
        (lambda raw: raw.replace(b'"nbytes"', b'"mbytes"'), "header of .* is damaged"),
    ],
    ids=[
        "cut-tensor",
        "cut-header",
        "cut-prefix",
        "cut-magic",
        "empty",
        "other-magic",
        "no-json",
        "missing-field",
    ],
)
def test_damage_is_named(path: Path, damage: object, message: str) -> None:
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ModelFolderError, match=message):
        WeightsHeader.read(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"cannot read .*weights.bin: No such file"):
        WeightsHeader.read(tmp_path / "weights.bin")
