"""Sessions saved and loaded: exact, atomic, and refused when they are not what they should be."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator, Session
from sabiyarn_edge.engine.session_file import MAGIC, SessionHeader
from sabiyarn_edge.errors import InvalidInputError, SessionFileError
from tests.export.models import export_tiny

PROMPT = [7, 8, 9, 10, 11]


@pytest.fixture(scope="module", params=["float16", "float32", "int8"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return export_tiny(folder, {"block_size": 64}, kv_cache_dtype=request.param, verify=False).folder


@pytest.fixture(scope="module")
def text(model: Path) -> list[int]:
    """A conversation so far."""
    return generator_of(model).generate(PROMPT, max_new_tokens=20).sequences[0].tolist()


def session_of(generator: EdgeGenerator) -> Session:
    """A session with that conversation."""
    session = generator.session(PROMPT)
    session.generate(max_new_tokens=20)
    return session


@pytest.fixture(scope="module")
def saved(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its session file; tests must not change it."""
    path = tmp_path_factory.mktemp("saved") / "chat.session"
    session_of(generator_of(model)).save(path)
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copy(saved, tmp_path / "copy.session"))


def generator_of(model: Path, **options: Any) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(model, num_threads=1, **options)


def test_a_loaded_session_continues_as_if_it_had_never_ended(
    model: Path, text: list[int], saved: Path, tmp_path: Path
) -> None:
    generator = generator_of(model)
    session = generator.load_session(saved)
    assert session.tokens == text
    resaved = tmp_path / "again.session"
    session.save(resaved)
    assert resaved.read_bytes() == saved.read_bytes()  # bit for bit, the keys and values too
    longer = [*text, 3, 4]
    result = session.generate([3, 4], max_new_tokens=10)
    assert (result.timings.reused_tokens, result.timings.prefill_tokens) == (25, 2)
    assert session.tokens == result.sequences[0].tolist()
    uninterrupted = generator_of(model)
    uninterrupted.generate(PROMPT, max_new_tokens=20)
    assert uninterrupted.generate(longer, max_new_tokens=10).sequences.tolist() == result.sequences.tolist()


def held(generator: EdgeGenerator, count: int) -> np.ndarray:
    """Keys and values of the first `count` tokens of the text that ran last."""
    row = generator._engine.rows.idle
    assert row is not None
    return generator._engine.decoder.kv_cache.read(row.index, 0, count)


def test_the_file_is_what_its_description_says(model: Path, text: list[int], saved: Path) -> None:
    """Read with struct and NumPy alone."""
    content = saved.read_bytes()
    magic, length = struct.unpack_from("<8sI", content)
    header = json.loads(content[12 : 12 + length])
    assert magic == MAGIC
    assert (header["num_tokens"], header["num_cached"]) == (25, 25)
    assert (header["byte_order"], header["format_version"]) == ("little", 1)
    start = (12 + length + 63) // 64 * 64
    assert np.frombuffer(content, "<i4", 50, start).tolist() == text + text
    dtype = {"float16": "<f2", "float32": "<f4", "int8": "i1"}[header["kv_cache_dtype"]]
    shape = (header["n_layer"], 2, header["n_heads"], 25, header["head_dim"])
    sides = np.frombuffer(content, dtype, int(np.prod(shape)), start + 4 * 50).reshape(shape)
    generator = generator_of(model)
    generator.load_session(saved)
    np.testing.assert_array_equal(sides, held(generator, 25))
    assert len(content) == start + 4 * 50 + sides.nbytes + 32


def test_forks_give_back_bit_for_bit_what_was_loaded(model: Path, saved: Path) -> None:
    generator = generator_of(model)
    session = generator.load_session(saved)
    forks = [session.fork(), session.fork()]

    loaded = held(generator, 25)
    reused = []
    for turn in range(3):
        for i, fork in enumerate(forks):  # each takes the other's place in the KV cache
            reused.append(fork.generate([10 * i + turn], max_new_tokens=2).timings.reused_tokens)
            np.testing.assert_array_equal(held(generator, 25), loaded)
    assert reused == [25, 25, 27, 27, 30, 30]
    assert generator.memory_usage()["prefix_cache"] > 0


def test_an_unrelated_prompt_after_loading_is_computed(model: Path, saved: Path) -> None:
    generator = generator_of(model)
    generator.load_session(saved)
    result = generator.generate([50, 51], max_new_tokens=5)
    assert result.timings.reused_tokens == 0
    assert (
        result.sequences.tolist()
        == generator_of(model).generate([50, 51], max_new_tokens=5).sequences.tolist()
    )


# --- files that are refused


def refuse(model: Path, path: Path, message: str) -> None:
    """Loading fails with the message, and leaves the generator as it was."""
    generator = generator_of(model)
    generator.generate(PROMPT, max_new_tokens=4)
    with pytest.raises(SessionFileError, match=message):
        generator.load_session(path)
    again = generator.generate(PROMPT, max_new_tokens=4)
    assert again.timings.reused_tokens == 4
    assert (
        again.sequences.tolist() == generator_of(model).generate(PROMPT, max_new_tokens=4).sequences.tolist()
    )


def edit_header(path: Path, **changes: Any) -> None:
    """Change header fields without changing the header's length: JSON takes spaces."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 8)
    fields = {**json.loads(content[12 : 12 + length]), **changes}
    text = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
    start = 12 + length + -(12 + length) % 64
    header = struct.pack("<8sI", MAGIC, len(text)) + text
    path.write_bytes(header + bytes(-len(header) % 64) + content[start:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", r"is not a session file: it begins with b''"),
        (lambda content: b"GGUF" + content[4:], r"is not a session file: it begins with b'GGUF"),
        (lambda content: content[:5], "it ends within its header"),
        (lambda content: content[:40], "it ends within its header"),
        (lambda content: content[:12] + b"]" + content[13:], "its header cannot be read"),
        (lambda content: struct.pack("<8sI", MAGIC, 100_000) + b"[" * 100_000, "its header cannot be read"),
        (lambda content: content[:-1], r"it is truncated, with \d+ bytes instead of \d+"),
        (lambda content: content[: len(content) // 2], "it is truncated"),
        (lambda content: content + b"x", "it is too long"),
        (
            lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
            "its checksum is wrong",
        ),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "its checksum is wrong"),
    ],
)
def test_a_damaged_file_is_refused(
    model: Path, copy: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    copy.write_bytes(damage(copy.read_bytes()))
    refuse(model, copy, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "has format version 2, and this sabiyarn_edge reads up to 1"),
        ({"format_version": "x"}, "its header cannot be read"),
        ({"format_version": float("inf")}, "its header cannot be read"),
        ({"byte_order": "big"}, "has 'big' byte order"),
        ({"weights_hash": "0" * 64}, "saved with another model: its weights have the hash '000000000000"),
        ({"kv_cache_dtype": "float64"}, "kv_cache_dtype is 'float64' there, '"),
        ({"n_heads": 1, "head_dim": 16}, "n_heads is 1 there, 2 here"),
        ({"num_cached": 26}, "it is truncated"),
        ({"num_tokens": 26}, "it is truncated"),
        ({"num_tokens": 0}, "num_tokens is 0"),
        ({"num_cached": -1}, "num_cached is -1"),
        ({"num_tokens": "24"}, "num_tokens is '24'"),
        ({"num_tokens": True}, "num_tokens is True"),
        ({"num_tokens": None}, "its header lacks 'num_tokens'"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    model: Path, copy: Path, changes: dict[str, Any], message: str
) -> None:
    edit_header(copy, **changes)
    refuse(model, copy, message)


@pytest.mark.parametrize(
    "value", [10**4298, -(10**4298), "\x1b[31m" * 20_000], ids=["huge", "negative", "escapes"]
)
def test_values_of_a_crafted_header_are_shown_short_and_escaped(model: Path, copy: Path, value: Any) -> None:
    generator, content = generator_of(model), copy.read_bytes()
    for field in dataclasses.fields(SessionHeader):
        changes = {name: value for name in ("num_tokens", "num_cached") if field.name.startswith("num_")}
        if field.name == "attachment" and isinstance(value, str):  # allowed, whatever it is
            continue
        copy.write_bytes(content)
        edit_header(copy, **changes, **{field.name: value} if not changes else {})
        with pytest.raises(SessionFileError) as refused:
            generator.load_session(copy)
        message = str(refused.value).removeprefix(str(copy))
        assert len(message) < 400, field.name
        assert message.isprintable(), field.name


def test_numbers_of_the_header_may_be_written_as_floats(model: Path, copy: Path, text: list[int]) -> None:
    edit_header(copy, n_layer=2.0, n_heads=2.0, head_dim=8.0)
    content = copy.read_bytes()[:-32]
    copy.write_bytes(content + hashlib.sha256(content).digest())
    assert generator_of(model).load_session(copy).tokens == text


def test_a_header_ends_at_the_next_multiple_of_64_bytes() -> None:
    numbers = dict.fromkeys(["n_layer", "n_heads", "head_dim", "num_tokens", "num_cached"], 1)
    for length in range(64):  # every remainder once
        header = SessionHeader(
            format_version=1, byte_order="little", weights_hash="x" * length, kv_cache_dtype="int8", **numbers
        )
        written = header.to_bytes()
        used = 12 + struct.unpack_from("<I", written, 8)[0]
        assert len(written) == (used + 63) // 64 * 64


def test_others_cannot_read_a_conversation(saved: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600


def test_every_flipped_byte_is_noticed(model: Path, copy: Path) -> None:
    content = copy.read_bytes()
    generator = generator_of(model)
    for position in np.random.default_rng(0).integers(0, len(content), 60):
        copy.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with pytest.raises(SessionFileError):
            generator.load_session(copy)


def test_another_models_session_is_refused(model: Path, saved: Path, tmp_path: Path) -> None:
    other = export_tiny(tmp_path, {"block_size": 64, "seed": 1}, verify=False).folder
    refuse(other, saved, "was saved with another model")


def test_a_missing_file_and_a_folder_are_explained(model: Path, tmp_path: Path) -> None:
    refuse(model, tmp_path / "nowhere.session", r"cannot read .*nowhere\.session: No such file")
    refuse(model, tmp_path, "cannot read .*: it is a folder")


def test_a_session_longer_than_the_window_is_refused(model: Path, saved: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds keys and values of 25 tokens, but kv_window is 24"):
        generator_of(model, kv_window=24).load_session(saved)
    assert len(generator_of(model, kv_window=25).load_session(saved).tokens) == 25


# --- saving that fails


@pytest.mark.parametrize(
    "attachment",
    [None, 5, ["x"], b"x", np.float32(1), -(10**5000)],
    ids=["None", "5", "list", "bytes", "array", "huge"],
)
def test_an_attachment_that_is_no_text_leaves_the_older_file(
    model: Path, tmp_path: Path, attachment: Any
) -> None:
    generator, path = generator_of(model), tmp_path / "chat.session"
    session = generator.session(PROMPT)
    session.save(path, attachment="good")
    with pytest.raises(InvalidInputError, match=r"attachment is .*, but must be a text"):
        session.save(path, attachment=attachment)
    assert generator.load_session(path).attachment == "good"


def test_nothing_to_save_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is nothing to save: the text is empty"):
        generator_of(model).session().save(tmp_path / "chat.session")
    assert not list(tmp_path.iterdir())


def test_what_was_not_computed_yet_is_computed_for_the_file(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "system.session"
    generator_of(model).session(PROMPT).save(path)
    result = generator_of(model).load_session(path).generate([3], max_new_tokens=4)
    assert (result.timings.reused_tokens, result.timings.prefill_tokens) == (5, 1)
    expected = generator_of(model).generate([*PROMPT, 3], max_new_tokens=4)
    assert result.sequences.tolist() == expected.sequences.tolist()


@pytest.mark.parametrize(
    ("options", "cached"),
    [
        ({"kv_window": 16}, 0),  # what the ring evicted cannot be saved
        ({"overflow": "slide", "keep_tokens": 3}, None),
        ({"overflow": "slide", "kv_window": 16, "num_sink_tokens": 2}, None),
    ],
    ids=["window", "slide", "both"],
)
def test_texts_past_the_window_or_the_positions_are_saved_whole(
    model: Path, tmp_path: Path, options: dict[str, Any], cached: int | None
) -> None:
    path = tmp_path / "long.session"
    session = generator_of(model, **options).session(PROMPT)
    session.generate(max_new_tokens=100 if "overflow" in options else 40)
    session.save(path)
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 8)
    held = json.loads(content[12 : 12 + length])["num_cached"]
    assert held == cached if cached is not None else held < len(session.tokens)
    loaded = generator_of(model, **options).load_session(path)
    assert loaded.tokens == session.tokens
    found = loaded.generate([3], max_new_tokens=5)
    assert found.generated == session.generate([3], max_new_tokens=5).generated
    if held:
        assert found.timings.reused_tokens > 0


@contextmanager
def full_disk() -> Iterator[None]:
    """Files may have 1000 bytes: writing more fails as on a full disk. It holds for pytest's own output too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_file(model: Path, copy: Path, text: list[int]) -> None:
    before = copy.read_bytes()
    generator = generator_of(model)
    session = generator.session([1, 2, 3])
    session.generate(max_new_tokens=30)
    message = r"cannot write .*copy\.session: .*What was there before is unchanged"
    with pytest.raises(SessionFileError, match=message), full_disk():
        session.save(copy)
    assert copy.read_bytes() == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy.session"]
    assert generator.load_session(copy).tokens == text


def test_a_folder_that_is_missing_is_an_error(model: Path, tmp_path: Path) -> None:
    generator = generator_of(model)
    with pytest.raises(SessionFileError, match=r"cannot write .*: No such file"):
        generator.session([1]).save(tmp_path / "nowhere" / "chat.session")


def test_what_is_no_file_stays_and_a_link_is_followed(model: Path, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    with EdgeGenerator.from_pretrained(model) as generator:
        session = generator.load_session(saved)
        with pytest.raises(SessionFileError, match=r"pipe: it is a pipe, not a file\. What was there"):
            session.save(tmp_path / "pipe")
        session.save(tmp_path / "link")
        assert generator.load_session(tmp_path / "target").tokens == session.tokens
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert (tmp_path / "link").is_symlink()


def test_loading_and_saving_run_beside_an_open_stream(model: Path, saved: Path, tmp_path: Path) -> None:
    generator = generator_of(model)
    expected = generator.generate([1, 2], max_new_tokens=9).generated[0]
    with generator.stream([1, 2], max_new_tokens=100_000, overflow="slide") as stream:
        first = next(stream).token_id
        loaded = generator.load_session(saved)
        assert len(loaded.tokens) == 25
        loaded.save(tmp_path / "chat.session")
        assert [first, *(next(stream).token_id for _ in range(8))] == expected
    assert (tmp_path / "chat.session").read_bytes() == saved.read_bytes()
