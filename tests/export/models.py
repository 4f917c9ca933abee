"""Tiny exports with an oracle for each, and a way to run them that shares no code with the package."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from sabiyarn_edge.engine.operators import DOMAIN, register_operators
from tests.data.make_tiny_checkpoint import EXPERTS, SHAPE, make_tiny_checkpoint, random_tensors
from tests.device import LACKING, kept_export
from tests.reference_gptjx import Array, ReferenceGPTJX

if TYPE_CHECKING:
    from sabiyarn_edge.export import ExportReport

SHAPES: dict[str, dict[str, Any]] = {
    "as-released": {},  # no biases, but j.bias all the same
    "no-j-bias": {"j_bias": False, "n_heads": 1, "n_layer": 3},
    "biases": {"bias": True, "n_heads": 3, "n_embd": 48, "vocab_size": 101},
    "wide-heads": {"n_heads": 2, "n_embd": 48, "vocab_size": 131, "n_layer": 1},
    "wide": {"n_heads": 8, "n_embd": 128, "vocab_size": 1009, "n_layer": 1},
    "routed": {"use_moe": True, "expert_per_layer": {"0": 3}, "n_embd": 32, "moe_dim": 48},
}
"""Shapes that differ in what an exporter can get wrong: head_dim is 8, 16 or 24, blocks of int8 hold 16 to
128 weights, vocabularies are prime, layers have an MLP or 3 or 4 experts."""


@dataclass(frozen=True)
class Exported:
    """An exported tiny model and what it was made from."""

    folder: Path
    report: ExportReport
    shape: dict[str, Any]
    tensors: dict[str, Array]
    int8_names: tuple[str, ...] = ()
    """Parts of the names of matrices that an int4 export keeps in 8 bits."""

    def dtype_of(self, name: str) -> str:
        """How the matrix of this name is stored."""
        kept = any(f".{part}." in name for part in self.int8_names)
        return "int8" if self.report.dtype == "int4" and kept else self.report.dtype

    def oracle(self) -> ReferenceGPTJX:
        """The same model in float64, of the values that the folder holds."""
        return ReferenceGPTJX(
            self.oracle_tensors(),
            n_layer=self.shape["n_layer"],
            n_heads=self.shape["n_heads"],
            num_experts_per_tok=self.shape.get("num_experts_per_tok", EXPERTS["num_experts_per_tok"]),
            kv_scales=self.kv_scales() if self.report.kv_cache_dtype == "int8" else None,
            rounds_inputs=self.report.dtype in ("int8", "int4"),
        )

    def kv_scales(self) -> list[tuple[Array, Array]]:
        """Of an int8 KV cache, [n_heads, head_dim] of each layer's keys and values, as they stand in decoder.onnx."""
        onnx = pytest.importorskip("onnx")
        graph = onnx.load(self.folder / "decoder.onnx", load_external_data=False).graph
        found = {
            t.name: onnx.numpy_helper.to_array(t)[0, :, 0] for t in graph.initializer if "_scale" in t.name
        }
        layers = range(self.shape["n_layer"])
        return [(found[f"h.{i}.attn.key_scale"], found[f"h.{i}.attn.value_scale"]) for i in layers]

    def oracle_tensors(self) -> dict[str, Array]:
        """The values that the folder holds, found anew from the checkpoint's."""
        store: dict[str, Callable[[Array], Array]] = {
            "float32": lambda matrix: matrix,
            "float16": lambda matrix: matrix.astype(np.float16),
            "bfloat16": rounded_to_bfloat16,
            "int8": rounded_to_bytes,
            "int4": rounded_to_table,
        }
        found = {}
        for name, values in self.tensors.items():
            rounded = store[self.dtype_of(name)]
            if values.ndim == 3:  # a bank, whose matrices are rounded as a Linear has them: [outputs, inputs]
                found[name] = np.stack([rounded(matrix.T).T for matrix in values])
            else:
                found[name] = rounded(values) if values.ndim == 2 and "gate" not in name else values
        return found


def rounded_to_bfloat16(matrix: Array) -> Array:
    """The nearest numbers of eight significant bits, ties to even; there are no subnormal ones here."""
    fraction, exponent = np.frexp(matrix.astype(np.float64))
    return np.ldexp(np.rint(256 * fraction), exponent - 8)


def rounded_to_bytes(matrix: Array, size: int | None = None) -> Array:
    """What 8 bits leave of a matrix [rows, width], block by block in plain loops."""
    size = size or next(size for size in (128, 64, 32, 16) if matrix.shape[1] % size == 0)
    out = np.empty(matrix.shape, np.float64)
    for row, block_index in np.ndindex(matrix.shape[0], matrix.shape[1] // size):
        place = (row, slice(block_index * size, (block_index + 1) * size))
        scale = np.float32(max(abs(weight) for weight in matrix[place])) / np.float32(127)
        out[place] = [
            round(float(weight / scale)) * np.float64(scale) if scale else 0 for weight in matrix[place]
        ]
    return out


TABLE = (-31, -22, -17, -13, -10, -7, -4, -1, 1, 3, 6, 9, 12, 16, 21, 28)
"""What codes of 4 bits mean."""


def rounded_to_table(matrix: Array) -> Array:
    """What 4 bits leave of a matrix [rows, width], rounded to nearest: row by row, 16 weights after another."""
    out = np.empty(matrix.shape, np.float64)
    for row, weights in enumerate(matrix):
        groups = weights.reshape(-1, 16)
        scales = [max(group, key=abs) / np.float32(TABLE[0]) for group in groups]
        row_scale = max(abs(scale) for scale in scales) / np.float32(127)
        for place, (group, scale) in enumerate(zip(groups, scales, strict=True)):
            step = np.float64(row_scale) * round(float(scale / row_scale)) if row_scale else 0.0
            nearest = [min((step * entry for entry in TABLE), key=lambda v, w=w: abs(v - w)) for w in group]
            out[row, 16 * place : 16 * place + 16] = nearest
    return out


def untiled_floats(tiles: Array, rows: int, width: int, *, weight_type: str) -> Array:
    """The matrix in tiles [tiles, bytes] of floats (csrc/core/kernels/tiled_matrix.hpp), number by number."""
    out = np.empty((rows, width), np.float32)
    size = 4 if weight_type == "float32" else 2
    for row, k in np.ndindex(rows, width):
        begin = (k * 8 + row % 8) * size
        data = tiles[row // 8, begin : begin + size].tobytes()
        if weight_type == "bfloat16":
            out[row, k] = np.frombuffer(bytes(2) + data, "<f4")[0]
        else:
            out[row, k] = np.frombuffer(data, weight_type)[0]
    return out


def untiled(tiles: Array, rows: int, width: int, *, bits: int, size: int) -> Array:
    """The matrix in tiles [tiles, bytes] (csrc/core/kernels/tiled_matrix.hpp), number by number."""
    out = np.empty((rows, width), np.float64)
    begin, header, codes = (0, 32, 8 * size) if bits == 8 else (32, size // 2, 4 * size)
    for row, k in np.ndindex(rows, width):
        block, inside, lane = k // size, k % size, row % 8
        tile = tiles[row // 8]
        part = tile[begin + block * (header + codes) : begin + (block + 1) * (header + codes)]
        if bits == 8:
            byte = part[header + inside // 4 * 32 + 4 * lane + inside % 4]
            out[row, k] = np.float64(part[:32].view(np.float32)[lane]) * np.int8(byte.view(np.int8))
        else:
            byte = int(part[header + inside // 8 * 32 + 4 * lane + inside % 4])
            code = byte & 15 if inside % 8 < 4 else byte >> 4
            scale = int(part[inside // 16 * 8 + lane].view(np.int8))
            out[row, k] = np.float64(tile[:32].view(np.float32)[lane]) * scale * TABLE[code]
    return out


def product_model(emit: Callable[[Any, str, Any], str], weights: Array, x_dtype: str = "float32") -> bytes:
    """An ONNX model of x [batch, n(, width)] and what `emit(graph, "x", matrix)` adds; all tensors are in it."""
    from onnx import helper, numpy_helper

    from sabiyarn_edge.export.graph_builder import GraphBuilder
    from sabiyarn_edge.export.weight_format import Matrix

    graph = GraphBuilder()
    rows, width = weights.shape
    graph.input("x", x_dtype, ["batch", "n", width] if x_dtype == "float32" else ["batch", "n"])

    name = "transformer.h.0.mlp.c_fc.weight"
    graph.output(
        emit(graph, "x", Matrix(name, (rows, width), lambda: weights)), "float32", ["batch", "n", None]
    )
    tensors = [
        numpy_helper.from_array(tensor.load().reshape(tensor.shape), name)
        for name, tensor in graph.tensors.items()
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "product", graph.inputs, graph.outputs, tensors),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
    )
    return bytes(model.SerializeToString())


def export_tiny(tmp_path: Path, shape: dict[str, Any] | None = None, **options: Any) -> Exported:
    """Make a tiny checkpoint of `shape` and export it, quietly, with `options` (in float32 unless these say otherwise);
    see tests/device.py for devices."""
    shape, folder, options = shape or {}, tmp_path / "model", {"dtype": "float32", **options}
    kept = kept_export(shape, options)
    report: Any
    if LACKING:
        if kept is None or not kept.is_dir():
            pytest.skip(f"an export is needed, but there is no {', '.join(sorted(LACKING))} here")
        shutil.copytree(kept, folder)
        report = SimpleNamespace(**json.loads((folder / "export_report.json").read_text(encoding="utf-8")))
    else:
        from sabiyarn_edge.export import export_model

        source = make_tiny_checkpoint(tmp_path / "checkpoint", **shape)
        report = export_model(source, folder, **{"progress": False, **options})
        if kept is not None:
            shutil.copytree(folder, kept, dirs_exist_ok=True)
    return Exported(folder, report, {**SHAPE, **shape}, dict(random_tensors(**shape)))


def accept_graphs(folder: Path) -> None:
    """Let config.json say that the graph is as it should be, whatever it is now."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    ours = config["sabiyarn_edge"]
    ours["graph_hash"] = hashlib.sha256((folder / ours["graph"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(config), encoding="utf-8")


def open_graph(path: Path) -> onnxruntime.InferenceSession:
    """With our operators, and one thread: of tiny models more would only wait for each other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    register_operators(options)
    return onnxruntime.InferenceSession(path, options)


class FeedingLoop:
    """Runs decoder.onnx on NumPy arrays that are bound as past, to be appended to in place.

    Unused slots of the cache hold NaN (127 as int8): whoever reads one of them is found out.

    Args:
        capacity: positions of each row; a multiple of 16, since keys are woven in tiles of so many positions.
    """

    def __init__(self, exported: Exported, *, rows: int, capacity: int) -> None:
        shape, report = exported.shape, exported.report
        self._session = open_graph(exported.folder / "decoder.onnx")
        heads, head_dim = shape["n_heads"], shape["n_embd"] // shape["n_heads"]
        unused = 127 if report.kv_cache_dtype == "int8" else np.nan
        self._cache = {
            f"past_key_values.{layer}.{name}": np.full(dimensions, unused, report.kv_cache_dtype)
            for layer in range(shape["n_layer"])
            for name, dimensions in (
                ("key", (rows, heads, capacity // 16, head_dim, 16)),
                ("value", (rows, heads, capacity, head_dim)),
            )
        }
        self._lengths = np.zeros(rows, np.int64)
        self._window = np.array([shape["block_size"], 0])  # of all positions, without sinks
        self._vocab_size = shape["vocab_size"]

    def keys(self, layer: int) -> Array:
        """[rows, heads, capacity, head_dim], in the order of positions."""
        woven = self._cache[f"past_key_values.{layer}.key"]
        rows, heads, _, head_dim, _ = woven.shape
        return woven.swapaxes(3, 4).reshape(rows, heads, -1, head_dim)

    def values(self, layer: int) -> Array:
        """[rows, heads, capacity, head_dim], in the order of positions."""
        return self._cache[f"past_key_values.{layer}.value"]

    def run(
        self,
        pieces: Mapping[int, Sequence[int] | Array],
        *,
        wanted: Sequence[int] | None = None,
        masks: Mapping[int, Array] | None = None,
    ) -> np.ndarray:
        """Append tokens to rows, all in one run.

        Args:
            pieces: the tokens of each row.
            wanted: tokens of the run whose logits are wanted; None: all.
            masks: of rows that are not causal, additive [tokens, tokens of the row afterwards].

        Returns:
            float32 [wanted, vocab_size].
        """
        segments, positions, blocks, mask_values = [], [], [np.empty(0)], 0
        for row, tokens in pieces.items():
            past, total = self._lengths[row], self._lengths[row] + len(tokens)
            mask = None if masks is None else masks.get(row)
            segments.append((row, len(tokens), total, 0, -1 if mask is None else mask_values))
            positions.append(np.arange(past, total))
            if mask is not None:
                blocks.append(np.ravel(mask))
                mask_values += mask.size
            self._lengths[row] = total
        input_ids = np.concatenate([np.array(tokens, np.int64) for tokens in pieces.values()])
        index = np.array(range(len(input_ids)) if wanted is None else wanted, np.int64)
        feeds = {
            "input_ids": input_ids,
            "position_ids": np.concatenate(positions),
            "segments": np.array(segments),
            "window": self._window,
            "attention_mask": np.concatenate(blocks).astype(np.float32),
            "logits_index": index,
            **self._cache,
        }
        logits = np.empty((len(index), self._vocab_size), np.float32)
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self._session.run_with_iobinding(binding)
        return logits

    def feed(self, tokens: Sequence[int] | Array, *, wanted: Sequence[int] | None = None) -> np.ndarray:
        """Append tokens [T] to row 0; logits [n, vocab_size] of the wanted ones (all)."""
        return self.run({0: tokens}, wanted=wanted)
