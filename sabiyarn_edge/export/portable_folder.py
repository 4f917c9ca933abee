"""Writes portable/ of a model folder: a graph of standard operators, its weights, and a README on how to run it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from onnx import ModelProto

from ..errors import ExportError
from ..model_folder.config import PORTABLE_FOLDER, GPTJXConfig
from ..model_folder.weights_file import ALIGNMENT, StoredTensor
from .decoder_graph import Parameters
from .graph_builder import GraphBuilder
from .onnx_file import make_model, write_onnx
from .portable_graph import IR_VERSION, OPSET, build_portable_graph
from .portable_readme import portable_readme
from .weights_writer import load_checked

__all__ = ["DATA_FILE", "GRAPH_FILE", "README_FILE", "PortableModel", "portable_dtype"]

GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
README_FILE = "README.md"

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes of a protobuf message, and so of a graph's file; tensors outside it have no limit."""

_WRITE_BYTES = 8 * 1024 * 1024


def portable_dtype(dtype: str) -> str:
    """How a portable graph stores the matrices of an export as `dtype`: quantized ones as the checkpoint's float32."""
    return "float16" if dtype.startswith("float16") else "float32"


@dataclass(frozen=True)
class PortableModel:
    """A portable graph whose tensors are computed only while they are written."""

    graph: GraphBuilder
    config: GPTJXConfig
    dtype: str
    """How matrices are stored, "float32" or "float16"."""

    @classmethod
    def build(cls, parameters: Parameters, config: GPTJXConfig, dtype: str) -> PortableModel:
        """Build the graph of an export as `dtype` (one of DTYPES)."""
        stored = portable_dtype(dtype)
        return cls(build_portable_graph(parameters, config, stored), config, stored)

    @cached_property
    def places(self) -> dict[str, StoredTensor]:
        """Where each matrix lies in DATA_FILE, in its order; norms, biases and shapes stand in the graph."""
        places, offset = {}, 0
        for tensor in self.graph.tensors.values():
            if len(tensor.shape) == 2:
                offset += -offset % ALIGNMENT
                places[tensor.name] = StoredTensor(tensor.dtype, tensor.shape, offset, tensor.nbytes)
                offset += tensor.nbytes
        return places

    @property
    def data_nbytes(self) -> int:
        """Size of DATA_FILE, bytes."""
        return max((place.offset + place.nbytes for place in self.places.values()), default=0)

    @property
    def stored_nbytes(self) -> int:
        """Bytes of matrices to write there: padding not included."""
        return sum(place.nbytes for place in self.places.values())

    def write(self, folder: Path, *, progress: Callable[[int], object] = lambda nbytes: None) -> None:
        """Make folder/portable and fill it.

        Args:
            progress: told the number of bytes after each piece of DATA_FILE.

        Raises:
            ExportError: a value does not fit the dtype, or the graph passes protobuf's limit.
            OSError: the disk is full, or a file cannot be written.
        """
        target = folder / PORTABLE_FOLDER
        target.mkdir()
        self._write_data(target / DATA_FILE, progress)
        metadata = {"block_size": str(self.config.block_size)}  # no input of the graph shows it
        model = make_model(
            self.graph, "decoder", DATA_FILE, self.places, metadata, opset=OPSET, ir_version=IR_VERSION
        )
        check_graph_size(model)
        write_onnx(model, target / GRAPH_FILE)
        (target / README_FILE).write_text(portable_readme(self.config, self.dtype), encoding="utf-8")

    def _write_data(self, path: Path, progress: Callable[[int], object]) -> None:
        with path.open("wb") as file:
            for name, place in self.places.items():
                file.seek(place.offset)
                data = load_checked(self.graph.tensors[name]).reshape(-1).view(np.uint8).data
                for begin in range(0, place.nbytes, _WRITE_BYTES):
                    progress(file.write(data[begin : begin + _WRITE_BYTES]))
            file.flush()
            os.fsync(file.fileno())


def check_graph_size(model: ModelProto) -> None:
    """Raise ExportError, with both numbers, if a graph does not fit a file."""
    size = model.ByteSize()
    if size > PROTOBUF_LIMIT:
        raise ExportError(
            f"the portable graph takes {size:,} bytes without its matrices, and an ONNX file holds at most "
            f"{PROTOBUF_LIMIT:,}: the model has too many layers for one graph. Export without --portable."
        )
