"""Float weights packed for this CPU, in a file that all processes map instead of each packing its own.

onnxruntime packs matrices when it loads a model, into memory of the process: 0.5 GiB for SabiYarn-125M in float32. It
can also write what it packed, and map that file later; mapped memory is clean, shared, and the system may drop and
read it again at will. The first load on a device makes this file in the cache folder (see cache_folder):

    <model hash>-<key hash>/
      decoder.onnx    the graph as onnxruntime optimized it, naming places in weights.bin
      weights.bin     the model folder's weights.bin, then the packed matrices, each at a multiple of 4 KiB
      entry.json      what it was made from and for, and each file's size, hash and time stamps

onnxruntime 1.32 packs again at every load and compares the bytes, one matrix at a time, and it looks for the plain
matrix in the file that has the packed one: a hole or another file in its place is refused. So the file takes twice the
size of the model, and half of that where the filesystem shares blocks between files (btrfs, XFS); five times the size
if weights are float16, of which onnxruntime makes float32 before it packs them. A second graph over
the same matrices (decoder_masked.onnx) has an entry of its own, whose weights.bin is another name of the first one's.

Elsewhere `replace_weights` makes the model folder's weights.bin one more name of that file, so that the disk holds the
model's bytes once: they stand at its beginning, where the model's graphs look for them. It is for those who ask for it
(`sabiyarn-edge pack --replace`), as it changes a file that is theirs; entries made later then take its place again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ModelFolderError
from ..system.atomic_write import atomic_file, atomic_folder, new_link, remove_leftovers
from ..system.cpu_features import describe_cpu
from .cache_folder import ENVIRONMENT_VARIABLE, cache_folder, locked, why_not_trusted
from .external_tensors import Entries, read_external_tensors, replace_external_tensors
from .packed_weights import PackedWeights
from .weights_file import WeightsHeader

__all__ = [
    "MIN_WEIGHTS_BYTES",
    "WeightCacheWarning",
    "is_cached",
    "open_cached",
    "packed_folder",
    "replace_weights",
]

MIN_WEIGHTS_BYTES = 32 * 2**20
"""Weights below this are not cached unless asked for: the disk and the first load's time would buy little."""

_FORMAT = 1  # of an entry; counted up when a reader of the old one would go wrong
_GRAPH, _WEIGHTS, _RECORD = "decoder.onnx", "weights.bin", "entry.json"
_ALIGNMENT = 4096  # bytes: onnxruntime's own for what it packs; it relies on 64
_MIN_EXTERNAL_BYTES = 16 * 1024  # smaller tensors stay in the graph, as the export has it
_LOCK_SECONDS = 300.0  # a Raspberry Pi 3 writes SabiYarn-125M's entry in less than a minute
_MIB = 2**20


class WeightCacheWarning(UserWarning):
    """Packed weights could not be kept on disk; the model runs the same, but holds them in its own memory."""


def open_cached(
    graph: Path,
    weights: Path,
    model_hash: str,
    load: Callable[[Path], Any],
    make: Callable[[Path, Mapping[str, str], Path], Any],
) -> Any | None:
    """A session over mapped, packed weights; they are made first if need be.

    Args:
        graph, weights: the model folder's files, already checked against each other.
        model_hash: the weights' hash, hexadecimal.
        load: opens a graph file; raises ModelFolderError if onnxruntime refuses it.
        make: the same with session config entries, writing the optimized graph to the path given.

    Returns:
        What `load` returned; None, after one WeightCacheWarning, when there is no place to keep packed weights.

    Raises:
        InvalidInputError: SABIYARN_EDGE_CACHE names a folder that others could put files into.
    """
    try:
        folder = cache_folder()
        if folder is None:
            return None
        entry = _Entry(folder, graph, weights, model_hash)
        for _ in range(2):  # the second time for an entry that looked whole and was not
            entry.ensure(make)
            try:
                return load(entry.folder / _GRAPH)
            except ModelFolderError:
                entry.discard()
        raise OSError("onnxruntime does not load what it wrote")
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)
        warnings.warn(
            f"packed weights are not kept on disk: {reason}. The model runs the same, but holds "
            f"{PackedWeights.of(graph).total / _MIB:.0f} MiB more memory of its own. Let {ENVIRONMENT_VARIABLE} name a "
            'folder of yours with enough space, or say weight_cache=False (--no-cache, or "off" in that variable).',
            WeightCacheWarning,
            stacklevel=_caller_depth(),
        )
        return None


def is_cached(graph: Path, weights: Path, model_hash: str) -> bool | None:
    """Whether `open_cached` would find its packed weights; None if there is no place to keep any.

    Raises:
        InvalidInputError: SABIYARN_EDGE_CACHE names a folder that others could put files into.
    """
    try:
        folder = cache_folder()
        return None if folder is None else _Entry(folder, graph, weights, model_hash).is_whole()
    except OSError:
        return None


def packed_folder(graph: Path, weights: Path, model_hash: str) -> Path:
    """Where `open_cached` keeps what it packs.

    Raises:
        InvalidInputError: SABIYARN_EDGE_CACHE names a folder that others could put files into.
        OSError: there is no cache folder, or it is turned off.
    """
    return _entry(graph, weights, model_hash).folder


def replace_weights(graph: Path, weights: Path, model_hash: str) -> None:
    """Make the model folder's weights.bin another name of the file with the packed weights, which `open_cached` made.

    A process that has mapped the old one keeps it. The mode stays, but that only the owner may write.

    Raises:
        InvalidInputError: SABIYARN_EDGE_CACHE names a folder that others could put files into.
        OSError: the file is a symbolic link or another user's, the folder cannot be written to, or files of the two
            folders cannot be linked (different filesystems, FAT). It is as it was.
    """
    _entry(graph, weights, model_hash).replace_weights()


def _entry(graph: Path, weights: Path, model_hash: str) -> _Entry:
    folder = cache_folder()
    if folder is None:
        raise OSError(f"{ENVIRONMENT_VARIABLE} is off")
    return _Entry(folder, graph, weights, model_hash)


@dataclass(frozen=True)
class _Entry:
    """One model packed for one CPU."""

    root: Path
    graph: Path
    weights: Path
    model_hash: str

    @cached_property
    def key(self) -> dict[str, Any]:
        """All that the packed bytes depend on."""
        import onnxruntime

        return {
            "format": _FORMAT,
            "model": self.model_hash,
            "graph": hashlib.blake2b(self.graph.read_bytes(), digest_size=16).hexdigest(),
            "onnxruntime": onnxruntime.__version__,
            "cpu": hashlib.blake2b(describe_cpu().encode(), digest_size=16).hexdigest(),
            "options": "graph_optimization_level=all",
        }

    @cached_property
    def folder(self) -> Path:
        text = json.dumps(self.key, sort_keys=True).encode()
        return self.root / f"{self.model_hash[:16]}-{hashlib.blake2b(text, digest_size=8).hexdigest()}"

    def ensure(self, make: Callable[[Path, Mapping[str, str], Path], Any]) -> None:
        """Make the entry unless it is there and whole. Raises OSError when it cannot be kept."""
        if self.is_whole():
            return
        with locked(self.root / f"{self.model_hash[:16]}.lock", timeout=_LOCK_SECONDS):
            if self.is_whole():
                return  # another process made it meanwhile
            remove_leftovers(self.root)
            self._remove_older()
            self._check_space()
            with atomic_folder(self.folder) as partial:
                self._make_in(partial, make)
            if self.weights.stat().st_size > WeightsHeader.read(self.weights).end:  # it was replaced before
                with suppress(OSError):
                    self.replace_weights()

    def replace_weights(self) -> None:
        """See the function of this name. Raises OSError."""
        packed = self.folder / _WEIGHTS
        if not self.is_whole() or WeightsHeader.read(packed) != WeightsHeader.read(self.weights):
            raise OSError(f"packed weights in {self.folder} are not there, damaged or another model's")
        found = self.weights.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise OSError(f"{self.weights} is a symbolic link: the file that it leads to would stay")
        if found.st_uid != os.geteuid():
            raise PermissionError(
                f"{self.weights} belongs to user id {found.st_uid} (we run as {os.geteuid()})"
            )
        if os.path.samestat(found, packed.stat()):
            return
        packed.chmod(stat.S_IMODE(found.st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))
        new_link(self.weights, packed)
        self.is_whole()  # writes its new times down, so that the next load need not read all of it

    def discard(self) -> None:
        """Remove the entry; others that have mapped it keep what they have."""
        if self.folder.is_dir() and not self.folder.is_symlink():
            shutil.rmtree(self.folder)
        else:
            self.folder.unlink(missing_ok=True)

    def is_whole(self) -> bool:
        """Whether the entry is there, ours, for this key, and holds the bytes that were written.

        The bytes are read only if a file's times are not those of its making.
        """
        folder = self.folder
        try:
            record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            distrusted = why_not_trusted(folder)
            if distrusted:
                raise PermissionError(f"{folder} is a folder {distrusted}")
            if record["key"] != self.key:
                return False
            whole, times_match = _hold_what_was_written(folder, record)
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, RecursionError):
            return False
        if whole and not times_match:  # copied, restored from a backup, or linked by another graph's entry
            with suppress(OSError):
                self._write_record(folder, self.key)
        return whole

    def _make_in(self, partial: Path, make: Callable[[Path, Mapping[str, str], Path], Any]) -> None:
        raw = partial / "onnxruntime"
        raw.mkdir(mode=0o700)
        options = {
            "session.save_external_prepacked_constant_initializers": "1",
            "session.optimized_model_external_initializers_file_name": _WEIGHTS,
            "session.optimized_model_external_initializers_min_size_in_bytes": str(_MIN_EXTERNAL_BYTES),
        }
        try:
            make(self.graph, options, raw / _GRAPH)
        except ModelFolderError as error:
            raise OSError(str(error)) from error
        try:
            if not any(
                _use_weights_of(other, raw, self.graph, partial) for other in self._entries_of_other_graphs()
            ):
                _put_together(raw, self.graph, self.weights, partial)
        except (ValueError, KeyError) as error:
            raise OSError(f"onnxruntime wrote a file of a kind that is not known here ({error})") from error
        shutil.rmtree(raw)
        self._write_record(partial, self.key)

    def _entries_of_other_graphs(self) -> Iterator[Path]:
        """Folders of whole entries that differ from this one in nothing but the graph."""
        for record_file in self.root.glob(f"{self.model_hash[:16]}-*/{_RECORD}"):
            folder = record_file.parent
            with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                record = json.loads(record_file.read_text(encoding="utf-8"))
                differs_in_graph_only = (
                    {**record["key"], "graph": self.key["graph"]} == self.key != record["key"]
                )
                if (
                    differs_in_graph_only
                    and not why_not_trusted(folder)
                    and _hold_what_was_written(folder, record)[0]
                ):
                    yield folder

    def _write_record(self, folder: Path, key: dict[str, Any]) -> None:
        files = {}
        for name in (_GRAPH, _WEIGHTS):
            found = (folder / name).stat()
            times = [found.st_mtime_ns, found.st_ctime_ns]
            files[name] = {"size": found.st_size, "hash": _hash(folder / name), "times": times}
        text = json.dumps({"key": key, "source": str(self.graph.resolve()), "files": files}, indent=1)
        with atomic_file(folder / _RECORD) as file:
            file.write(text.encode())

    def _remove_older(self) -> None:
        """Remove entries for this CPU of the same graph of the model, or of what stood in its folder before.

        Those for other CPUs may belong to another machine with the same home folder.
        """
        key, source = self.key, str(self.graph.resolve())
        for record_file in self.root.glob(f"*/{_RECORD}"):
            try:
                record = json.loads(record_file.read_text(encoding="utf-8"))
                same_cpu = record["key"]["cpu"] == key["cpu"]
                same_graph = Path(record["source"]).name == self.graph.name
                same_model = record["key"]["model"] == key["model"] or record["source"] == source
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                continue
            being_made = record_file.parent.name.startswith(".")
            if (
                same_cpu
                and same_graph
                and same_model
                and not being_made
                and record_file.parent != self.folder
            ):
                shutil.rmtree(record_file.parent, ignore_errors=True)

    def _check_space(self) -> None:
        entry, needed = _space(self.graph, self.weights)
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise OSError(
                f"making them takes {needed / _MIB:.0f} MiB in {self.root} ({entry / _MIB:.0f} once it is done), and "
                f"{free / _MIB:.0f} MiB are free"
            )


def _space(graph: Path, weights: Path) -> tuple[int, int]:
    """Bytes on disk of an entry, and at most while it is made."""
    packed, plain = PackedWeights.of(graph), WeightsHeader.read(weights).end
    entry = plain + packed.total + 2 * packed.float16
    # Besides: onnxruntime's file, which is eaten up as the entry grows. For a moment both hold the largest matrix,
    # plain and packed, and onnxruntime's may hold it under two names.
    return entry, entry + plain + 3 * packed.largest


def _hold_what_was_written(folder: Path, record: dict[str, Any]) -> tuple[bool, bool]:
    """(Whether an entry's files hold the bytes of their making, whether their times say so too)."""
    times_match = True
    for name in (_GRAPH, _WEIGHTS):
        found, stated = (folder / name).stat(), record["files"][name]
        if found.st_size != stated["size"]:
            return False, False
        if [found.st_mtime_ns, found.st_ctime_ns] != stated["times"]:
            times_match = False
            if _hash(folder / name) != stated["hash"]:
                return False, False
    return True, times_match


def _use_weights_of(other: Path, made: Path, graph: Path, out: Path) -> bool:
    """Write out/decoder.onnx, and link out/weights.bin to another entry's that holds all that this graph needs.

    Returns:
        Whether it does, and files can be linked; else nothing was written.
    """
    optimized = (made / _GRAPH).read_bytes()
    there = read_external_tensors((other / _GRAPH).read_bytes())
    known = read_external_tensors(graph.read_bytes())
    for name, entries in read_external_tensors(optimized).items():
        # Tensors of the model are the same under the same name. Those that onnxruntime computed are if they were packed
        # to the same: before a packed matrix's place stand the kernel and a hash of the bytes.
        place, keys = there.get(name, {}), _packed_keys(entries)
        if (
            place.get("length") != entries["length"]
            or _packed_keys(place) != keys
            or not (keys or name in known)
        ):
            return False
    try:
        (out / _WEIGHTS).hardlink_to(other / _WEIGHTS)
    except (OSError, NotImplementedError):
        return False
    (out / _GRAPH).write_bytes(replace_external_tensors(optimized, lambda name, _: there[name]))
    return True


def _packed_keys(entries: Entries) -> list[str]:
    return [value.partition("|")[0] for key, value in sorted(entries.items()) if key.startswith("prepacked_")]


def _put_together(made: Path, graph: Path, weights: Path, out: Path) -> None:
    """Write out/decoder.onnx and out/weights.bin: the model's weights once, then what onnxruntime added to them.

    onnxruntime's file holds a tensor that two names share twice; it is eaten up from its end, so that the disk need
    not hold all three files.
    """
    known = read_external_tensors(graph.read_bytes())
    optimized = (made / _GRAPH).read_bytes()
    _copy(weights, out / _WEIGHTS, WeightsHeader.read(weights).end)
    places: dict[str, Entries] = {}
    with (made / _WEIGHTS).open("r+b") as source, (out / _WEIGHTS).open("r+b") as target:
        target.seek(0, os.SEEK_END)
        tensors = read_external_tensors(optimized).items()
        for name, entries in sorted(tensors, key=lambda item: int(item[1]["offset"]), reverse=True):
            begin, length = int(entries["offset"]), int(entries["length"])
            place = {"location": _WEIGHTS, "offset": "", "length": str(length)}
            original = known.get(name, {})
            if original.get("length") == entries["length"] and _same(
                source, begin, target, int(original["offset"]), length
            ):
                place["offset"] = original["offset"]
            else:  # onnxruntime computed it
                place["offset"] = str(_append(source, begin, length, target))
            for packed_name, packed in entries.items():
                if packed_name.startswith("prepacked_"):
                    kernel, *blobs = packed.split("|")
                    moved = [_move_blob(blob, source, target) for blob in blobs]
                    place[packed_name] = "|".join([kernel, *moved])
            places[name] = place
            source.truncate(begin)
    (out / _GRAPH).write_bytes(replace_external_tensors(optimized, lambda name, _: places[name]))


def _move_blob(blob: str, source: BinaryIO, target: BinaryIO) -> str:
    """One packed buffer, "offset;length;flags" in onnxruntime's writing, at its new place."""
    offset, length, *rest = blob.split(";")
    return ";".join([str(_append(source, int(offset), int(length), target)), length, *rest])


def _append(source: BinaryIO, offset: int, length: int, target: BinaryIO) -> int:
    """Copy bytes to the target's end; returns where they lie there."""
    place = -(-target.seek(0, os.SEEK_END) // _ALIGNMENT) * _ALIGNMENT
    target.seek(place)
    source.seek(offset)
    while length > 0:
        data = source.read(min(length, _MIB))
        if not data:
            raise OSError(f"{source.name} is truncated: onnxruntime ran out of space")
        target.write(data)
        length -= len(data)
    return place


def _same(one: BinaryIO, one_offset: int, other: BinaryIO, other_offset: int, length: int) -> bool:
    one.seek(one_offset)
    other.seek(other_offset)
    while length > 0:
        data = one.read(min(length, _MIB))
        if not data or data != other.read(len(data)):
            return False
        length -= len(data)
    return True


def _copy(source: Path, target: Path, length: int) -> None:
    """Copy a file's first bytes, sharing its blocks where the filesystem can (btrfs, XFS)."""
    with source.open("rb") as reader, target.open("xb") as writer:
        if hasattr(os, "copy_file_range"):
            with suppress(OSError):  # another filesystem: the plain copy below goes on where this stopped
                while copied := os.copy_file_range(reader.fileno(), writer.fileno(), min(length, 64 * _MIB)):
                    length -= copied
        while data := reader.read(min(length, _MIB)):
            writer.write(data)
            length -= len(data)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


def _caller_depth() -> int:
    """Levels up to the first caller outside this package, for warnings to point at."""
    package = str(Path(__file__).parents[1]) + os.sep
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, depth = frame.f_back, depth + 1
    return depth
