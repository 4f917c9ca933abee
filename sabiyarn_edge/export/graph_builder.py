"""Writes ONNX nodes one after another and keeps the tensors that they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, ValueInfoProto, helper

from .tensors import Tensor

__all__ = ["GraphBuilder", "onnx_type"]


def onnx_type(dtype: str) -> int:
    """ONNX's number of a NumPy element type."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


class GraphBuilder:
    """A graph that grows node by node. Nodes are called as the values they make, so a profile reads well."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.tensors: dict[str, Tensor] = {}

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input of the graph; a text in shape names a dimension known only at run time."""
        self.inputs.append(helper.make_tensor_value_info(name, onnx_type(dtype), list(shape)))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare an output of the graph: a value that some node makes under this name."""
        self.outputs.append(helper.make_tensor_value_info(name, onnx_type(dtype), list(shape)))

    def tensor(self, tensor: Tensor) -> str:
        """Use a tensor as a constant; the same one may be used again."""
        known = self.tensors.setdefault(tensor.name, tensor)
        if (known.dtype, known.shape, known.stored_as) != (tensor.dtype, tensor.shape, tensor.stored_as):
            raise ValueError(f"two different tensors are called {tensor.name}")
        return tensor.name

    def integers(self, name: str, values: Sequence[int]) -> str:
        """Use a list of integers as a constant: a shape, for instance."""
        return self.tensor(Tensor(name, "int64", (len(values),), lambda: np.array(values, np.int64)))

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        name: str,
        *,
        outputs: Sequence[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node. An empty input or output name leaves that one out.

        Returns:
            Name of the first output: `name` itself unless `outputs` says otherwise.
        """
        given = list(inputs)
        while given and not given[-1]:
            given.pop()  # at the end, the name may be left out too
        made = list(outputs) if outputs is not None else [name]
        self.nodes.append(helper.make_node(op, given, made, name=name, domain=domain, **attributes))
        return made[0]

    def cast(self, value: str, dtype: str, name: str) -> str:
        """Change the element type."""
        return self.node("Cast", [value], name, to=onnx_type(dtype))
