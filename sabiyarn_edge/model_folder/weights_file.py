"""weights.bin: a header, then the tensors of a model folder, aligned so that onnxruntime can map them.

    offset 0    magic "SYEDGE01", 8 bytes
    offset 8    length of the JSON header, bytes, uint32, little endian
    offset 12   the JSON header, UTF-8:
                  format_version   int
                  weights_hash     SHA-256 over every tensor of the model, hexadecimal (see WeightsDigest)
                  inline_hash      SHA-256 over the small tensors, which stand in the graph instead of here
                  tensors          name -> {dtype, shape, offset, nbytes}, by rising offset
    then        zeros up to a multiple of 64 KiB, and the tensors: little endian, C order

From the header a reader can tell, without hashing half a gigabyte, that the file is whole and which graph it
belongs to. Needs neither torch nor onnx.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import ModelFolderError
from ..system.json_text import parse_json
from ..system.regular_file import check_regular_file

__all__ = ["ALIGNMENT", "MAGIC", "StoredTensor", "WeightsDigest", "WeightsHeader", "hash_weights_file"]

MAGIC = b"SYEDGE01"
ALIGNMENT = 64 * 1024
"""Bytes: the largest page of the systems we run on (aarch64), and the granularity of file mappings on
Windows."""

_PREFIX = struct.Struct("<8sI")
_READ_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies in weights.bin."""

    dtype: str
    """NumPy's name: "float32", or "uint8" for tiles."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    nbytes: int


@dataclass(frozen=True)
class WeightsHeader:
    """What weights.bin says of itself."""

    format_version: int
    weights_hash: str
    inline_hash: str
    tensors: dict[str, StoredTensor]

    @property
    def end(self) -> int:
        """Bytes of header and tensors."""
        ends = [tensor.offset + tensor.nbytes for tensor in self.tensors.values()]
        return max(ends) if ends else len(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The header as it stands in the file, zero padded to whole 64 KiB."""
        text = json.dumps(asdict(self), separators=(",", ":")).encode()
        used = _PREFIX.size + len(text)
        return _PREFIX.pack(MAGIC, len(text)) + text + bytes(-used % ALIGNMENT)

    @classmethod
    def read(cls, path: str | Path) -> WeightsHeader:
        """Read the header, and check that the file holds every tensor that it names.

        Raises:
            ModelFolderError: the file is missing, of another kind, damaged or truncated.
        """
        path = Path(path)
        try:
            size = check_regular_file(path)
            with path.open("rb") as file:
                prefix = file.read(_PREFIX.size)
                if prefix and len(prefix) < _PREFIX.size and MAGIC.startswith(prefix[: len(MAGIC)]):
                    raise ModelFolderError(_truncated(path, size, f"a header begins with {_PREFIX.size}"))
                if len(prefix) < _PREFIX.size or not prefix.startswith(MAGIC):
                    raise ModelFolderError(
                        f"{path} is not a weights file of sabiyarn_edge: it begins with {prefix[:8]!r}, "
                        f"not {MAGIC!r}. Copy the model folder again, or export the checkpoint again."
                    )
                length = _PREFIX.unpack(prefix)[1]
                if size < _PREFIX.size + length:  # before memory is taken for it
                    raise ModelFolderError(
                        _truncated(path, size, f"its header asks for {_PREFIX.size + length}")
                    )
                text = file.read(length)
        except OSError as error:
            raise ModelFolderError(f"cannot read {path}: {error.strerror or error}.") from error
        try:
            fields = parse_json(text)
            tensors = {
                name: StoredTensor(str(t["dtype"]), tuple(t["shape"]), _size(t["offset"]), _size(t["nbytes"]))
                for name, t in fields["tensors"].items()
            }
            header = cls(
                int(fields["format_version"]),
                str(fields["weights_hash"]),
                str(fields["inline_hash"]).encode("ascii").decode(),
                tensors,
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ModelFolderError(
                f"the header of {path} is damaged ({error!r}). Copy the model folder again."
            ) from error
        if size < header.end:
            raise ModelFolderError(_truncated(path, size, f"its header asks for {header.end}"))
        return header


class WeightsDigest:
    """SHA-256 over tensors in their order: of each, the JSON line [name, dtype, shape] and then its bytes.

    The hash of a model is that of its stored tensors followed by the inline_hash, hexadecimal, as one more
    line.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def begin(self, name: str, dtype: str, shape: Sequence[int]) -> None:
        """Start a tensor; its bytes follow through `update`."""
        self._sha256.update(json.dumps([name, dtype, list(shape)]).encode() + b"\n")

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes of the tensor that was begun last."""
        self._sha256.update(data)

    def finish(self, inline_hash: str = "") -> str:
        """The hash, hexadecimal; with the hash of the graph's own tensors added when one is given."""
        if inline_hash:
            self._sha256.update(inline_hash.encode() + b"\n")
        return self._sha256.hexdigest()


def hash_weights_file(path: str | Path) -> str:
    """Compute the weights_hash anew from all the bytes: equal to the header's if nothing is damaged.

    Raises:
        ModelFolderError: as WeightsHeader.read.
    """
    header = WeightsHeader.read(path)
    digest = WeightsDigest()
    try:
        with Path(path).open("rb") as file:
            for name, tensor in header.tensors.items():
                digest.begin(name, tensor.dtype, tensor.shape)
                file.seek(tensor.offset)
                left = tensor.nbytes
                while left > 0 and (data := file.read(min(left, _READ_BYTES))):
                    digest.update(data)
                    left -= len(data)
    except OSError as error:  # a card that wears out
        raise ModelFolderError(f"cannot read {path}: {error.strerror or error}.") from error
    return digest.finish(header.inline_hash)


def _size(value: object) -> int:
    """A number of bytes, as it should stand in the header."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a number of bytes")
    return value


def _truncated(path: Path, size: int, needed: str) -> str:
    return (
        f"{path} is truncated: it has {size} bytes, and {needed}. "
        "Copy the model folder again, or export the checkpoint again."
    )
