"""Writes ONNX nodes one after another and keeps the tensors that they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        self.positions_of = ""
        """A value whose first two dimensions are the batch and the positions that are computed now."""
        self._shapes: dict[tuple[str, int], str] = {}

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

    def on_rows(self, x: str, width: int, outputs: int, name: str, product: Callable[[str, str], str]) -> str:
        """Apply a product that knows no batches to x [batch, n, width]: -> [batch, n, outputs].

        Args:
            product: emits the node(s) from [rows, width] to [rows, outputs]; given the input and a name.
        """
        flat = self.node("Reshape", [x, self.integers(f"rows_of_{width}", [-1, width])], f"{name}.flat")
        rows = product(flat, f"{name}.rows")
        return self.node("Reshape", [rows, self._shape(outputs)], name, allowzero=1)  # n may be 0

    def _shape(self, width: int) -> str:
        """[batch, n, width] of what is computed now, as a value; each is made once."""
        key = (self.positions_of, width)
        if key not in self._shapes:
            leading = f"{self.positions_of}.positions"
            if not any(of == self.positions_of for of, _ in self._shapes):
                self.node("Shape", [self.positions_of], leading, start=0, end=2)
            parts = [leading, self.integers(f"width_{width}", [width])]
            self._shapes[key] = self.node("Concat", parts, f"{leading}_by_{width}", axis=0)
        return self._shapes[key]

    def cast(self, value: str, dtype: str, name: str) -> str:
        """Change the element type."""
        return self.node("Cast", [value], name, to=onnx_type(dtype))
