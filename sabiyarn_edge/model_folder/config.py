"""GPTJXConfig describes a GPTJX model, ModelConfig an exported model folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, ModelFolderError, shown
from ..system.json_text import json_kind, parse_json
from ..system.regular_file import read_regular_file

__all__ = [
    "CONFIG_FILE",
    "EXPORTED_KV_CACHE_DTYPES",
    "FORMAT_VERSION",
    "KV_CACHE_DTYPES",
    "OF_EXPERTS",
    "PORTABLE_FOLDER",
    "GPTJXConfig",
    "ModelConfig",
]

CONFIG_FILE = "config.json"
PORTABLE_FOLDER = "portable"
"""Of a model folder: the same model in standard ONNX operators, for other runtimes; never read here."""
FORMAT_VERSION = 4
"""Of the folders that are written."""
_OLDEST_VERSION, _OLDEST_INT4_VERSION = 3, 4
"""Of the folders that are read; 4-bit weights lie otherwise since version 4, all else as before."""
KV_CACHE_DTYPES = ("float32", "float16")
"""KV cache types of the torch model."""
_KV_VALUE_BYTES = {"float16": 2, "float32": 4, "int8": 1}
EXPORTED_KV_CACHE_DTYPES = tuple(_KV_VALUE_BYTES)
"""KV cache types of exported graphs. int8 needs scales, which an export measures."""

_LARGEST = 2**31 - 1
"""Largest size: the core keeps ids and positions in 32 bits."""
_LONGEST_JSON = 64 * 2**20
"""Bytes of a JSON file; the longest known, indexes of shards, have a few MiB."""
_LONGEST_GRAPH = 256 * 2**20
"""Bytes of a graph. Its matrices stand in the weights' file: SabiYarn-125M's graph has 0.5 MiB."""
_INLINE_BYTES = 16 * 1024
"""Smaller tensors may stand in the graph."""

_MAY_BE_NULL = (
    *("dropout", "bias", "use_kv_cache", "kv_cache_dtype", "max_batch_size"),
    *("use_moe", "moe_dim", "expert_per_layer"),
)
"""Settings, as against sizes, which every config must state."""

OF_EXPERTS = ("use_moe", "num_experts", "num_experts_per_tok", "moe_dim", "expert_per_layer")
"""Fields that mean nothing where use_moe is False."""


@dataclass(frozen=True, kw_only=True)
class GPTJXConfig:
    """Shape and settings of a GPTJX model; names and defaults are those of its authors' config.json.

    Raises:
        InvalidInputError: a value has the wrong type or is out of range.
    """

    block_size: int = 32768
    """Positions of the learned table wpe: the most tokens that prompt and output have together."""
    vocab_size: int = 52050
    """Entries of the vocabulary: token ids are 0 ... vocab_size - 1."""
    n_layer: int = 12
    """Transformer blocks."""
    n_heads: int = 12
    """Attention heads of each block; divides n_embd."""
    n_embd: int = 768
    """Width of the hidden state."""
    dropout: float = 0.0
    """Probability that training drops a value. Evaluation never does."""
    bias: bool = False
    """True if linear layers and layer norms have a bias. `j` may have one in any case (see modeling)."""
    use_kv_cache: bool = True
    """True if generation keeps the keys and values of past tokens instead of computing them again."""
    kv_cache_dtype: str = "float32"
    """Type of the torch model's KV cache: "float32" or "float16". It computes in float32 either way."""
    max_batch_size: int = 1
    """Rows that the torch model's KV cache may hold."""
    use_moe: bool = False
    """True if the MLP of each block is a mixture of experts, to some of which each token is routed."""
    num_experts: int = 4
    """Experts of each layer that expert_per_layer does not name."""
    num_experts_per_tok: int = 2
    """Experts that compute each token, at most those of any layer."""
    moe_dim: int | None = None
    """Width of an expert's hidden layer; None: 4 * n_embd."""
    expert_per_layer: Mapping[str, int] | None = field(default=None, hash=False)
    """Index of a layer, as a text -> how many experts it has."""

    def __post_init__(self) -> None:
        for name in ("block_size", "vocab_size", "n_layer", "n_heads", "n_embd", "max_batch_size"):
            _check_size(name, getattr(self, name))
        for name in ("bias", "use_kv_cache", "use_moe"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise InvalidInputError(f"{name} is {shown(value)}; it must be true or false.")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float):
            raise InvalidInputError(f"dropout is {shown(self.dropout)}; it must be a number in [0, 1).")
        if not 0.0 <= self.dropout < 1.0:
            raise InvalidInputError(f"dropout is {self.dropout}; it must be in [0, 1).")
        if self.kv_cache_dtype not in KV_CACHE_DTYPES:
            allowed = " or ".join(repr(name) for name in KV_CACHE_DTYPES)
            raise InvalidInputError(f"kv_cache_dtype is {shown(self.kv_cache_dtype)}; it must be {allowed}.")
        if self.n_embd % self.n_heads != 0:
            raise InvalidInputError(
                f"n_embd is {self.n_embd} and n_heads is {self.n_heads}: n_heads must divide n_embd."
            )
        if self.use_moe:
            self._check_experts()

    def _check_experts(self) -> None:
        for name in ("num_experts", "num_experts_per_tok"):
            _check_size(name, getattr(self, name))
        if self.moe_dim is not None:
            _check_size("moe_dim", self.moe_dim)
        named = {} if self.expert_per_layer is None else self.expert_per_layer
        if not isinstance(named, Mapping):
            raise InvalidInputError(
                f'expert_per_layer is {named!r}; it must be an object of layers and numbers: {{"0": 2, "1": 3}}.'
            )
        layers = {str(layer) for layer in range(self.n_layer)}
        for name, count in named.items():
            if name not in layers:
                raise InvalidInputError(
                    f'expert_per_layer names the layer {name!r}; n_layer is {self.n_layer}, so layers are "0" to '
                    f'"{self.n_layer - 1}".'
                )
            _check_size(f"expert_per_layer of layer {name}", count)
        for layer in range(self.n_layer):
            count = self.experts_of(layer)
            if self.num_experts_per_tok > count:
                raise InvalidInputError(
                    f"num_experts_per_tok is {self.num_experts_per_tok}, but layer {layer} has {count} "
                    f"expert{'s' * (count > 1)}: a token cannot have more than there are."
                )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_heads

    @property
    def mlp_width(self) -> int:
        """Width of the hidden layer of an MLP, or of an expert."""
        return self.moe_dim if self.use_moe and self.moe_dim is not None else 4 * self.n_embd

    def experts_of(self, layer: int) -> int:
        """Experts of a layer; 0 where it has an MLP."""
        if not self.use_moe:
            return 0
        return (self.expert_per_layer or {}).get(str(layer), self.num_experts)

    @property
    def resting_parameters(self) -> int:
        """Numbers that a token does not meet: those of the experts that it is not routed to."""
        resting = sum(max(self.experts_of(i) - self.num_experts_per_tok, 0) for i in range(self.n_layer))
        return resting * 2 * self.n_embd * self.mlp_width

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GPTJXConfig:
        """Read the keys of a config.json.

        Keys of other programs (architectures, torch_dtype, ...) are ignored. Absent keys take their default, and so
        do those of _MAY_BE_NULL that are null.
        `n_head` is read as `n_heads`, and "torch.float16" as "float16".
        """
        known = {f.name for f in dataclasses.fields(cls)}
        found = {
            name: value
            for name, value in values.items()
            if name in known and not (value is None and name in _MAY_BE_NULL)
        }
        if "n_head" in values and found.setdefault("n_heads", values["n_head"]) != values["n_head"]:
            raise InvalidInputError(
                f"n_head is {values['n_head']!r} but n_heads is {found['n_heads']!r}, "
                "and both name the number of attention heads. Give one of them."
            )
        if isinstance(found.get("kv_cache_dtype"), str):
            found["kv_cache_dtype"] = found["kv_cache_dtype"].removeprefix("torch.")
        if not found.get("use_moe"):
            found = {name: value for name, value in found.items() if name not in OF_EXPERTS[1:]}
        return cls(**found)

    @classmethod
    def from_json_file(cls, path: str | Path) -> GPTJXConfig:
        """Read a config.json. Raises InvalidInputError, which names the file, if it cannot be read."""
        try:
            return cls.from_dict(read_json_object(path))
        except InvalidInputError as error:
            if str(path) in str(error):
                raise
            raise InvalidInputError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """All fields that mean something, ready for JSON."""
        left_out = () if self.use_moe else OF_EXPERTS
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}


def _check_size(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        raise InvalidInputError(
            f"{name} is {shown(value)}; it must be an integer of at least 1 and at most {_LARGEST}."
        )


def read_json_object(
    path: str | Path, *, on_object: Callable[[list[tuple[str, Any]]], object] | None = None
) -> dict[str, Any]:
    """Read the JSON object in a UTF-8 file. Raises InvalidInputError, which names the file, if there is none.

    Args:
        on_object: called with the keys and values of each object, inner objects first, a repeated key each time.
    """
    try:
        text = read_regular_file(path, at_most=_LONGEST_JSON).decode("utf-8-sig")
        values = parse_json(text, on_object=on_object)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:  # UnicodeDecodeError too
        raise InvalidInputError(
            f"{path} is not valid JSON ({error}). If it is truncated, copy it again."
        ) from error
    if not isinstance(values, dict):
        raise InvalidInputError(f"{path} holds {json_kind(values)}; a JSON object is needed.")
    return values


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """config.json of an exported model folder: the GPTJX keys, and ours under "sabiyarn_edge"."""

    gptjx: GPTJXConfig
    """The model's shape. Its block_size is that of the exported position table."""
    format_version: int = FORMAT_VERSION
    """Version of the folder's layout."""
    dtype: str = "float32"
    """How weights are stored: "float32", "float16", "bfloat16", "int8" or "int4" (some matrices then in 8 bits)."""
    kv_cache_dtype: str = "float16"
    """Type of past_key_values in the graph: "float16", "float32" or "int8" (its scales are constants of the graph)."""
    graph: str = "decoder.onnx"
    """File name of the graph."""
    graph_hash: str
    """SHA-256 of the graph's file, hexadecimal. Small tensors (norms, scales) stand in there."""
    weights_file: str = "weights.bin"
    """File name of the tensors outside the graphs."""
    weights_bytes: int
    """Size of weights_file, bytes."""
    weights_hash: str
    """SHA-256 over the tensors, hexadecimal; also in weights_file's header and in the graph's metadata."""

    @classmethod
    def load(cls, folder: str | Path) -> ModelConfig:
        """Read and check folder/config.json.

        Raises:
            ModelFolderError: the folder or the file is missing, damaged, of a newer format, or not an export.
        """
        path = Path(folder) / CONFIG_FILE
        if not Path(folder).is_dir():
            raise ModelFolderError(f"{folder} is not a folder. Give one that `sabiyarn-edge export` wrote.")
        try:
            return cls._from_dict(read_json_object(path))
        except InvalidInputError as error:
            message = str(error) if str(path) in str(error) else f"{path}: {error}"
            raise ModelFolderError(message) from error

    @classmethod
    def _from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        ours = values.get("sabiyarn_edge")
        if not isinstance(ours, dict):
            raise InvalidInputError(
                'it has no "sabiyarn_edge" section, so this is not an exported model. '
                "If it is a checkpoint, run `sabiyarn-edge export` on it first."
            )
        version = ours.get("format_version")
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise InvalidInputError(
                f"format_version is {shown(version)}; it must be an integer of at least 1."
            )
        if version > FORMAT_VERSION:
            raise InvalidInputError(
                f"format_version is {version}, and this sabiyarn_edge reads up to {FORMAT_VERSION}. "
                "Upgrade sabiyarn_edge, or export the checkpoint again with this version."
            )
        of_int4 = ours.get("dtype") == "int4"
        oldest = _OLDEST_INT4_VERSION if of_int4 else _OLDEST_VERSION
        if version < oldest:
            raise InvalidInputError(
                f"format_version is {version}, and this sabiyarn_edge reads {'int4 ' * of_int4}folders of version "
                f"{oldest} or later. Export the checkpoint again: sabiyarn-edge export SOURCE OUT --force."
            )
        own_fields = [f for f in dataclasses.fields(cls) if f.name != "gptjx"]
        missing = [f.name for f in own_fields if f.name not in ours]
        if missing:
            raise InvalidInputError(
                f'its "sabiyarn_edge" section lacks {", ".join(missing)}. Export the checkpoint again.'
            )
        config = cls(gptjx=GPTJXConfig.from_dict(values), **{f.name: ours[f.name] for f in own_fields})
        config._check()
        return config

    def _check(self) -> None:
        for name in ("dtype", "weights_file", "weights_hash", "graph_hash"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise InvalidInputError(f"{name} is {shown(value)}; it must be a text.")
        if self.kv_cache_dtype not in EXPORTED_KV_CACHE_DTYPES:
            raise InvalidInputError(
                f"kv_cache_dtype is {shown(self.kv_cache_dtype)}; it must be one of {EXPORTED_KV_CACHE_DTYPES}."
            )
        if (
            isinstance(self.weights_bytes, bool)
            or not isinstance(self.weights_bytes, int)
            or self.weights_bytes < 0
        ):
            raise InvalidInputError(
                f"weights_bytes is {shown(self.weights_bytes)}; it must be a number of bytes."
            )
        for name in ("vocab_size", "block_size"):
            # At least 4 bits for each number of an embedding. What is computed for each id or position is bounded so.
            size, width = getattr(self.gptjx, name), self.gptjx.n_embd
            if size * width // 2 > max(self.weights_bytes, _INLINE_BYTES):
                raise InvalidInputError(
                    f"{name} is {size} and n_embd is {width}, but weights_bytes is {self.weights_bytes}: the weights "
                    "cannot hold such a table. Copy the whole model folder again."
                )
        for name in (self.weights_file, self.graph):
            # A folder may come from anywhere: its config must not make us open files outside it.
            if not _is_file_name(name):
                raise InvalidInputError(f"{shown(name)} is not a plain file name inside the model folder.")

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of a token's keys and values: n_embd numbers each in every layer."""
        return 2 * self.gptjx.n_layer * self.gptjx.n_embd * _KV_VALUE_BYTES[self.kv_cache_dtype]

    def read_graph(self, folder: str | Path) -> bytes:
        """Read the graph's file and check it against its hash.

        Raises:
            ModelFolderError: the file is missing, damaged, or from another export; or a link leads out of the folder,
                so that onnxruntime would not read the weights.
        """
        path, weights = Path(folder) / self.graph, Path(folder) / self.weights_file
        try:
            content = read_regular_file(path, at_most=_LONGEST_GRAPH)
        except OSError as error:
            raise ModelFolderError(
                f"cannot read {path}: {error.strerror or error}. Copy the model folder again, or export the "
                "checkpoint again."
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.graph_hash:
            raise ModelFolderError(
                f"{path} is damaged or belongs to another model: its hash is {found[:12]}..., and {CONFIG_FILE} says "
                f"{self.graph_hash[:12]}.... Copy the whole model folder again."
            )
        found_at = [Path(os.path.realpath(file)) for file in (path, weights)]
        if weights.is_file() and found_at[0].parent not in found_at[1].parents:
            raise ModelFolderError(
                f"{path} is at {found_at[0]}, and {weights} at {found_at[1]}, but onnxruntime reads weights from the "
                "graph's folder only. Copy the files into one folder, as `sabiyarn-edge install` does."
            )
        return content

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        ours = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "gptjx"}
        return {**self.gptjx.to_dict(), "sabiyarn_edge": ours}

    def save(self, folder: str | Path) -> None:
        """Write folder/config.json. The folder must exist."""
        self._check()
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        (Path(folder) / CONFIG_FILE).write_text(text, encoding="utf-8")


def _is_file_name(name: Any) -> bool:
    """Return True if every system takes `name` as a file name in a folder: at most 255 bytes, no separator or NUL."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not {"/", "\\"} & {*name}
        and name.isprintable()
        and len(name.encode()) <= 255
    )
