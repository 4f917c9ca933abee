"""Files of a folder from anywhere: pipes, devices, numbers that nobody has, and text that drives a terminal."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.chat.template import ChatTemplate
from sabiyarn_edge.cli import main
from sabiyarn_edge.engine.session_file import SessionHeader
from sabiyarn_edge.errors import ModelFolderError, SessionFileError


@pytest.fixture
def folder(text_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(text_model, tmp_path / "model"))


def load_all(folder: Path) -> None:
    generator = EdgeGenerator.from_pretrained(folder, num_threads=1)
    assert generator.tasks is not None
    ChatTemplate.find(folder)


FILES = (
    "config.json",
    "weights.bin",
    "decoder.onnx",
    "generation_config.json",
    "tokenizer.json",
    "tasks.json",
    "chat_template.jinja",
    "tokenizer_config.json",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("kind", "make"),
    [("pipe", os.mkfifo), ("device", lambda path: path.symlink_to("/dev/zero"))],
)
def test_a_file_that_never_ends_is_refused(
    folder: Path, name: str, kind: str, make: Callable[[Path], None]
) -> None:
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(ModelFolderError, match=f"{name}.*it is a {kind}, not a file"):
        load_all(folder)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        (values if name in values else values["sabiyarn_edge"])[name] = value
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["block_size", "vocab_size", "n_layer", "n_heads", "n_embd", "max_batch_size", "weights_bytes"]
)
@pytest.mark.parametrize(
    "value", [2**31, 2**40, 2**63, 10**4000], ids=["2**31", "2**40", "2**63", "4000 digits"]
)
def test_a_number_that_no_model_has_is_refused(folder: Path, name: str, value: int) -> None:
    change_config(folder, **{name: value})
    for open_folder in (EdgeGenerator.from_pretrained, EdgeGenerator.plan):
        if name == "weights_bytes" and open_folder is EdgeGenerator.plan:
            continue  # it opens no weights
        with pytest.raises(ModelFolderError, match=name if name != "weights_bytes" else "bytes"):
            open_folder(folder)


@pytest.mark.parametrize("name", ["vocab_size", "block_size"])
def test_a_table_that_the_weights_cannot_hold_is_refused(folder: Path, name: str) -> None:
    """Whatever the graph says: the bytes of stop strings are made for each id, masks for each position."""
    change_config(folder, **{name: 2**31 - 1})
    with pytest.raises(
        ModelFolderError, match=f"{name} is 2147483647 .* the weights cannot hold such a table"
    ):
        EdgeGenerator.from_pretrained(folder)


def with_ids(file: Path, header: SessionHeader, place: int, token: int) -> None:
    """Write a token of a session file anew, with a checksum that fits."""
    content = bytearray(file.read_bytes()[:-32])
    struct.pack_into("<i", content, len(header.to_bytes()) + 4 * place, token)
    file.write_bytes(bytes(content) + hashlib.sha256(content).digest())


@pytest.mark.parametrize("token", [-1, -(2**31), 320, 2**31 - 1])
@pytest.mark.parametrize("place", [0, 5], ids=["text", "cached"])
def test_a_session_with_ids_outside_the_vocabulary_is_refused(
    text_model: Path, tmp_path: Path, token: int, place: int
) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    file = tmp_path / "session"
    generator.session([5, 6, 7]).save(file)
    header = SessionHeader.of(generator.config, 3, 3)
    with_ids(file, header, place, 319)
    expected = [5, 6, 7]
    if place < len(expected):
        expected[place] = 319
    assert generator.load_session(file).tokens == expected
    with_ids(file, header, place, token)
    with pytest.raises(SessionFileError, match=f"token id {token}, and ids of this model are 0 to 319"):
        generator.load_session(file)
    np.testing.assert_array_equal(generator.generate([5, 6], max_new_tokens=1).sequences[:, :2], [[5, 6]])


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"]
)
def test_a_session_that_never_ends_is_refused(
    forgetful: EdgeGenerator, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "session")
    with pytest.raises(SessionFileError, match="not a file"):
        forgetful.load_session(tmp_path / "session")


ESCAPE = "\x1b]0;owned\x07\x1b[31m\x9b31m\u202e"


def test_info_shows_escape_sequences_written_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_config(folder, dtype=ESCAPE)
    (folder / f"a{ESCAPE}b").touch()
    for arguments in ([], ["--json"]):
        assert main(["info", str(folder), *arguments]) == 0
        shown = capsys.readouterr().out
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*shown}
        if arguments:
            facts = json.loads(shown)
            assert facts["dtype"] == ESCAPE
        else:
            assert r"\x1b]0;owned\x07\x1b[31m\x9b31m\u202e" in shown


def test_errors_show_escape_sequences_written_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_config(folder, weights_file=f"{ESCAPE}.bin", graph="decoder.onnx")
    for command in (
        ["info", str(folder)],
        ["generate", "--model", str(folder), "a"],
        ["doctor", str(folder)],
    ):
        assert main(command) == 1
        shown = "".join(capsys.readouterr())
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*shown}
