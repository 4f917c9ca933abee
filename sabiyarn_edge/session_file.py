"""The file of a conversation: its tokens, and their keys and values as the KV cache holds them.

    offset 0    magic "SYEDKV01", 8 bytes
    offset 8    length of the JSON header, bytes, uint32
    offset 12   the JSON header, UTF-8 (SessionHeader), then zeros up to a multiple of 64 bytes
    then        the tokens, int32 [num_tokens]
                of each layer the keys and then the values, [n_heads, num_tokens, head_dim], in the cache's type
    last        SHA-256 of everything before it, 32 bytes

All numbers are little endian. SabiYarn-125M in float16: 36,868 bytes per token. Keys and values belong to one
set of weights, so a file is refused by every other model, another quantization of the same checkpoint included.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .durable import new_file
from .errors import InvalidInputError, SessionFileError
from .session import DecoderSession

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

    @classmethod
    def of(cls, session: DecoderSession, num_tokens: int) -> SessionHeader:
        """The header of so many tokens of this model."""
        shape = session.config.gptjx
        return cls(
            format_version=FORMAT_VERSION,
            byte_order="little",
            weights_hash=session.config.weights_hash,
            kv_cache_dtype=session.config.kv_cache_dtype,
            n_layer=shape.n_layer,
            n_heads=shape.n_heads,
            head_dim=shape.head_dim,
            num_tokens=num_tokens,
        )

    @property
    def side_shape(self) -> tuple[int, int, int]:
        """Shape of the keys, and of the values, of one layer."""
        return (self.n_heads, self.num_tokens, self.head_dim)

    @property
    def payload_bytes(self) -> int:
        """Bytes of tokens, keys and values."""
        value_bytes = np.dtype(self.kv_cache_dtype).itemsize
        return 4 * self.num_tokens + 2 * self.n_layer * int(np.prod(self.side_shape)) * value_bytes

    def to_bytes(self) -> bytes:
        """The header as it stands in the file."""
        text = json.dumps(dataclasses.asdict(self), separators=(",", ":")).encode()
        used = _PREFIX.size + len(text)
        return _PREFIX.pack(MAGIC, len(text)) + text + bytes(-used % _ALIGNMENT)


def save_session(path: str | Path, session: DecoderSession) -> None:
    """Write what the session remembers; an older file at `path` is replaced when the new one is whole.

    Raises:
        InvalidInputError: nothing is remembered.
        SessionFileError: the file cannot be written; what was there before is still there.
    """
    tokens = session.remembered
    if not tokens:
        raise InvalidInputError(
            "there is nothing to save. Generate from one prompt first; texts that have run past kv_window and batches "
            "of several prompts are not remembered."
        )
    path = Path(path)
    try:
        with new_file(path, mode=0o600) as file:
            digest = hashlib.sha256()
            for part in _parts(session, tokens):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
    except OSError as error:
        raise SessionFileError(
            f"cannot write {path}: {error.strerror or error}. What was there before is unchanged."
        ) from error


def load_session(path: str | Path, session: DecoderSession) -> list[int]:
    """Put a file's keys and values into the KV cache, for the next prompt that begins with its tokens.

    Returns:
        The tokens.

    Raises:
        SessionFileError: the file is missing, damaged, of another model or of a newer version; the session is as
            it was.
        InvalidInputError: it holds more tokens than the session's window.
    """
    path = Path(path)
    try:
        content = np.memmap(path, np.uint8, "r") if path.stat().st_size > 0 else np.empty(0, np.uint8)
    except OSError as error:
        raise SessionFileError(f"cannot read {path}: {error.strerror or error}.") from error
    header, start = _read_header(content, path)
    _check_model(header, session, path)
    _check_content(content, start + header.payload_bytes, path)
    if header.num_tokens > session.window:
        raise InvalidInputError(
            f"{path} holds {header.num_tokens} tokens, but kv_window is {session.window}. Load the model with a larger "
            "kv_window."
        )
    end = start + 4 * header.num_tokens
    tokens = content[start:end].view("<i4").tolist()
    sides = content[end:-_DIGEST_BYTES].view(_little_endian(header.kv_cache_dtype))
    session.restore(tokens, sides.reshape(header.n_layer, 2, *header.side_shape))
    return [int(token) for token in tokens]


def _parts(session: DecoderSession, tokens: list[int]) -> Iterator[bytes]:
    """The file's content but for the digest, one layer's keys or values at a time."""
    header = SessionHeader.of(session, len(tokens))
    yield header.to_bytes()
    yield np.asarray(tokens, "<i4").tobytes()
    for layer in range(header.n_layer):
        for side in ("key", "value"):
            buffer = session.kv_cache.buffer(layer, side)
            assert buffer is not None
            yield (
                buffer[0, :, : len(tokens)]
                .astype(_little_endian(header.kv_cache_dtype), copy=False)
                .tobytes()
            )


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
        fields = json.loads(content[_PREFIX.size : end].tobytes())
        version = int(fields["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        _refuse_damaged(path, f"its header cannot be read ({error!r})")
    if version > FORMAT_VERSION:
        raise SessionFileError(
            f"{path} has format version {version}, and this sabiyarn_edge reads up to {FORMAT_VERSION}. Upgrade "
            "sabiyarn_edge."
        )
    try:
        header = SessionHeader(
            **{field.name: fields[field.name] for field in dataclasses.fields(SessionHeader)}
        )
    except KeyError as error:
        _refuse_damaged(path, f"its header lacks {error}")
    if header.byte_order != "little":
        raise SessionFileError(
            f"{path} has {header.byte_order!r} byte order; session files are little endian. Save it anew."
        )
    return header, end + -end % _ALIGNMENT


def _check_model(header: SessionHeader, session: DecoderSession, path: Path) -> None:
    """Hold the header against the model at hand; the number of tokens is the file's own affair."""
    if isinstance(header.num_tokens, bool) or not isinstance(header.num_tokens, int) or header.num_tokens < 1:
        _refuse_damaged(path, f"num_tokens is {header.num_tokens!r}")
    own = SessionHeader.of(session, header.num_tokens)
    if header.weights_hash != own.weights_hash:
        raise SessionFileError(
            f"{path} was saved with another model: its weights have the hash {str(header.weights_hash)[:12]}..., and "
            f"this model's {own.weights_hash[:12]}.... Load it with that model, or begin anew."
        )
    for field in dataclasses.fields(SessionHeader):
        there, here = getattr(header, field.name), getattr(own, field.name)
        if there != here:
            raise SessionFileError(
                f"{path} does not fit this model: {field.name} is {there!r} there, {here!r} here."
            )


def _check_content(content: NDArray[np.uint8], end: int, path: Path) -> None:
    if len(content) != end + _DIGEST_BYTES:
        what = "truncated" if len(content) < end + _DIGEST_BYTES else "too long"
        _refuse_damaged(path, f"it is {what}, with {len(content)} bytes instead of {end + _DIGEST_BYTES}")
    digest = hashlib.sha256()
    for start in range(0, end, _HASHED_AT_ONCE):
        digest.update(content[start : min(start + _HASHED_AT_ONCE, end)].data)
    if digest.digest() != content[end:].tobytes():
        _refuse_damaged(path, "its checksum is wrong")


def _refuse_damaged(path: Path, what: str) -> NoReturn:
    raise SessionFileError(f"{path} is damaged: {what}. Begin the conversation anew, or copy the file again.")
