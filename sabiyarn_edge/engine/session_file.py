"""The file of a conversation: its tokens, and their keys and values as the KV cache holds them.

    offset 0    magic "SYEDKV01", 8 bytes
    offset 8    length of the JSON header, bytes, uint32
    offset 12   the JSON header, UTF-8 (SessionHeader), then zeros up to a multiple of 64 bytes
    then        the text's tokens, int32 [num_tokens]
                the tokens that keys and values are there for, int32 [num_cached]: the text's, or fewer of a long text
                of each layer the keys and then the values, [n_heads, num_cached, head_dim], in the cache's type
    last        SHA-256 of everything before it, 32 bytes

All numbers are little endian. SabiYarn-125M in float16: 36,872 bytes per token. Keys and values belong to one
set of weights, so a file is refused by every other model, another quantization of the same checkpoint included.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError, SessionFileError, shown
from ..model_folder.config import ModelConfig
from ..system.atomic_write import atomic_file
from ..system.json_text import parse_json
from ..system.regular_file import check_regular_file
from .decoder import Decoder
from .rows import Rows

__all__ = ["FORMAT_VERSION", "MAGIC", "SessionHeader", "load_session", "save_session"]

MAGIC = b"SYEDKV01"
FORMAT_VERSION = 1

_PREFIX = struct.Struct("<8sI")
_ALIGNMENT = 64
_DIGEST_BYTES = hashlib.sha256().digest_size
_HASHED_AT_ONCE = 4 * 2**20  # bytes


@dataclass(frozen=True, kw_only=True)
class SessionHeader:
    """What a session file says of itself."""

    format_version: int
    byte_order: str
    """Always "little"."""
    weights_hash: str
    """The model's, from its config.json."""
    kv_cache_dtype: str
    n_layer: int
    n_heads: int
    head_dim: int
    num_tokens: int
    num_cached: int
    attachment: str = ""
    """A text that the caller keeps beside."""

    @classmethod
    def of(cls, config: ModelConfig, num_tokens: int, num_cached: int, attachment: str = "") -> SessionHeader:
        """The header of a text of so many tokens for this model."""
        shape = config.gptjx
        return cls(
            format_version=FORMAT_VERSION,
            byte_order="little",
            weights_hash=config.weights_hash,
            kv_cache_dtype=config.kv_cache_dtype,
            n_layer=shape.n_layer,
            n_heads=shape.n_heads,
            head_dim=shape.head_dim,
            num_tokens=num_tokens,
            num_cached=num_cached,
            attachment=attachment,
        )

    @property
    def key_values_shape(self) -> tuple[int, ...]:
        """Shape of the keys and values."""
        return (self.n_layer, 2, self.n_heads, self.num_cached, self.head_dim)

    @property
    def payload_bytes(self) -> int:
        """Bytes of tokens, keys and values."""
        value_bytes = np.dtype(self.kv_cache_dtype).itemsize
        positions = 4 * (self.num_tokens + self.num_cached)
        return positions + math.prod(self.key_values_shape) * value_bytes

    def to_bytes(self) -> bytes:
        """The header as it stands in the file."""
        text = json.dumps(dataclasses.asdict(self), separators=(",", ":")).encode()
        used = _PREFIX.size + len(text)
        return _PREFIX.pack(MAGIC, len(text)) + text + bytes(-used % _ALIGNMENT)


def save_session(
    path: str | Path,
    config: ModelConfig,
    tokens: Sequence[int],
    cached: Sequence[int],
    key_values: NDArray[Any] | None,
    attachment: str = "",
) -> None:
    """Write a text; an older file at `path` is replaced when the new one is whole.

    Args:
        config: the model's.
        tokens: the text's, at least one.
        cached: those whose keys and values are given.
        key_values: [n_layer, 2, n_heads, len(cached), head_dim]; None: none are saved.
        attachment: a text of the caller's.

    Raises:
        InvalidInputError: the text is empty.
        SessionFileError: the file cannot be written; what was there before is still there.
    """
    if not tokens:
        raise InvalidInputError(
            "there is nothing to save: the text is empty. Append or generate something first."
        )
    path = Path(path)
    try:
        with atomic_file(path, mode=0o600) as file:
            digest = hashlib.sha256()
            kept = cached if key_values is not None else ()
            for part in _parts(config, tokens, kept, key_values, attachment):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
    except OSError as error:
        raise SessionFileError(
            f"cannot write {path}: {error.strerror or error}. What was there before is unchanged."
        ) from error


@dataclass(frozen=True)
class LoadedSession:
    """What a file held, but for keys and values."""

    tokens: list[int]
    cached: list[int]
    """The tokens whose keys and values a row holds now."""
    attachment: str


def load_session(path: str | Path, decoder: Decoder, rows: Rows) -> LoadedSession:
    """Put a file's keys and values into a row, for the next prompt that begins with its tokens.

    Raises:
        SessionFileError: the file is missing, damaged, of another model or of a newer version; nothing has changed.
        InvalidInputError: it holds keys and values of more tokens than the decoder's window.
    """
    path = Path(path)
    try:
        content = np.memmap(path, np.uint8, "r") if check_regular_file(path) > 0 else np.empty(0, np.uint8)
    except OSError as error:
        if error.errno == errno.ENOMEM:  # no address space to map it
            raise MemoryError(str(error)) from error
        raise SessionFileError(f"cannot read {path}: {error.strerror or error}.") from error
    header, start = _read_header(content, path)
    header = _check_model(header, decoder.config, path)
    _check_content(content, start + header.payload_bytes, path)
    if header.num_cached > decoder.window:
        raise InvalidInputError(
            f"{path} holds keys and values of {header.num_cached} tokens, but kv_window is {decoder.window}. Load the "
            "model with a larger kv_window."
        )
    end = start + 4 * (header.num_tokens + header.num_cached)
    ids = content[start:end].view("<i4")
    vocab_size = decoder.config.gptjx.vocab_size
    if ids.min() < 0 or ids.max() >= vocab_size:
        outside = ids[(ids < 0) | (ids >= vocab_size)][0]
        _refuse_damaged(
            path, f"it holds the token id {outside}, and ids of this model are 0 to {vocab_size - 1}"
        )
    tokens, cached = ids[: header.num_tokens].tolist(), ids[header.num_tokens :].tolist()
    key_values = content[end:-_DIGEST_BYTES].view(_little_endian(header.kv_cache_dtype))
    if cached:
        row = None
        try:
            rows.reserve(len(cached))
            row = rows.take()
            decoder.kv_cache.write(row.index, key_values.reshape(header.key_values_shape))
        except MemoryError:
            if decoder.kv_cache.num_rows == 0:  # it was emptied for want of memory
                rows.reset()
            rows.end([row] if row else [], keep=False)
            raise
        row.tokens = list(cached)
        rows.end([row], keep=True)
    return LoadedSession(tokens, cached, header.attachment)


def _parts(
    config: ModelConfig,
    tokens: Sequence[int],
    cached: Sequence[int],
    key_values: NDArray[Any] | None,
    attachment: str,
) -> Iterator[bytes]:
    """The file's content but for the digest, one layer's keys or values at a time."""
    header = SessionHeader.of(config, len(tokens), len(cached), attachment)
    yield header.to_bytes()
    yield np.asarray(tokens, "<i4").tobytes()
    yield np.asarray(cached, "<i4").tobytes()
    for layer in key_values if key_values is not None else ():
        for values in layer:
            yield values.astype(_little_endian(header.kv_cache_dtype), copy=False).tobytes()


def _little_endian(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _read_header(content: NDArray[np.uint8], path: Path) -> tuple[SessionHeader, int]:
    """The header, and where the tokens begin."""
    prefix = content[: _PREFIX.size].tobytes()
    if not prefix or not MAGIC.startswith(prefix[: len(MAGIC)]):
        raise SessionFileError(f"{path} is not a session file: it begins with {prefix[:8]!r}, not {MAGIC!r}.")
    length = _PREFIX.unpack(prefix)[1] if len(prefix) == _PREFIX.size else 0
    end = _PREFIX.size + length
    if length == 0 or end > len(content):
        _refuse_damaged(path, "it ends within its header")
    try:
        fields = parse_json(content[_PREFIX.size : end].tobytes())
        version = int(fields["format_version"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        _refuse_damaged(path, f"its header cannot be read ({shown(error)})")
    if version > FORMAT_VERSION:
        raise SessionFileError(
            f"{path} has format version {shown(version)}, and this sabiyarn_edge reads up to {FORMAT_VERSION}. Upgrade "
            "sabiyarn_edge."
        )
    try:
        names = [field.name for field in dataclasses.fields(SessionHeader)]
        header = SessionHeader(
            **{name: fields[name] for name in names if name != "attachment" or name in fields}
        )
    except KeyError as error:
        _refuse_damaged(path, f"its header lacks {error}")
    if header.byte_order != "little":
        raise SessionFileError(
            f"{path} has {shown(header.byte_order)} byte order; session files are little endian. Save it anew."
        )
    return header, end + -end % _ALIGNMENT


def _check_model(header: SessionHeader, config: ModelConfig, path: Path) -> SessionHeader:
    """Hold the header against the model at hand; the numbers of tokens are the file's own affair.

    Returns:
        The same header from the model: the file may say 2.0 for 2.
    """
    for name, least in (("num_tokens", 1), ("num_cached", 0)):
        count = getattr(header, name)
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            _refuse_damaged(path, f"{name} is {shown(count)}")
    if not isinstance(header.attachment, str):
        _refuse_damaged(path, f"attachment is {shown(header.attachment)}")
    own = SessionHeader.of(config, header.num_tokens, header.num_cached, header.attachment)
    if header.weights_hash != own.weights_hash:
        raise SessionFileError(
            f"{path} was saved with another model: its weights have the hash {shown(header.weights_hash)}, and "
            f"this model's {own.weights_hash!r}. Load it with that model, or begin anew."
        )
    for field in dataclasses.fields(SessionHeader):
        there, here = getattr(header, field.name), getattr(own, field.name)
        if there != here:
            raise SessionFileError(
                f"{path} does not fit this model: {field.name} is {shown(there)} there, {here!r} here."
            )
    return own


def _check_content(content: NDArray[np.uint8], end: int, path: Path) -> None:
    if len(content) != end + _DIGEST_BYTES:
        what = "truncated" if len(content) < end + _DIGEST_BYTES else "too long"
        _refuse_damaged(
            path, f"it is {what}, with {len(content)} bytes instead of {shown(end + _DIGEST_BYTES)}"
        )
    digest = hashlib.sha256()
    for start in range(0, end, _HASHED_AT_ONCE):
        digest.update(content[start : min(start + _HASHED_AT_ONCE, end)].data)
    if digest.digest() != content[end:].tobytes():
        _refuse_damaged(path, "its checksum is wrong")


def _refuse_damaged(path: Path, what: str) -> NoReturn:
    raise SessionFileError(f"{path} is damaged: {what}. Begin the conversation anew, or copy the file again.")
