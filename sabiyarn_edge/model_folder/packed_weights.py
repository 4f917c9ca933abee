"""What onnxruntime makes of a graph's weights when it loads them, read from the graph's file alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelFolderError
from .external_tensors import read_external_tensors
from .graph_nodes import read_nodes

__all__ = ["PackedWeights"]

# Nodes whose matrix onnxruntime packs, and which of their inputs that is: it then holds the packed copy instead of the
# file's.
_PACKING = {"MatMul": 1, "Gemm": 1}


@dataclass(frozen=True)
class PackedWeights:
    """Bytes."""

    total: int
    """Of all matrices once they are packed."""
    largest: int
    """Of the largest of them."""
    float16: int
    """Of the matrices that the file has in float16. onnxruntime makes float32 of them, twice that, and packs it."""
    read_as_stored: int
    """Of the tensors that nodes read as the file has them."""

    @classmethod
    def of(cls, graph: Path) -> PackedWeights:
        """Those of an exported graph file.

        Raises:
            ModelFolderError: it cannot be read, or is no ONNX model.
        """
        try:
            return cls._read(graph.read_bytes())
        except (OSError, ValueError, KeyError) as error:
            raise ModelFolderError(f"cannot read {graph}: {error}. Copy the model folder again.") from error

    @classmethod
    def _read(cls, model: bytes) -> PackedWeights:
        lengths = {name: int(at["length"]) for name, at in read_external_tensors(model).items()}
        widened: dict[str, str] = {}  # float16 matrices as float32: onnxruntime does that once, at load
        packed: dict[str, int] = {}
        read: set[str] = set()
        for node in read_nodes(model):
            kind, inputs = node.operator, node.inputs
            tensors = [widened.get(name, name) for name in inputs]
            if kind == "Cast" and tensors[0] in lengths:
                widened[node.outputs[0]] = tensors[0]
            elif kind in _PACKING and tensors[_PACKING[kind]] in lengths:
                matrix = tensors[_PACKING[kind]]
                packed[matrix] = (2 if inputs[_PACKING[kind]] in widened else 1) * lengths[matrix]
            else:
                read.update(tensors)
        return cls(
            total=sum(packed.values()),
            largest=max(packed.values(), default=0),
            float16=sum(lengths[matrix] for matrix in set(widened.values()) & packed.keys()),
            read_as_stored=sum(length for name, length in lengths.items() if name in read),
        )
