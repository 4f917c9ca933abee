"""Layer norms, as standard operators or as parts of our own."""

from __future__ import annotations

from dataclasses import dataclass

from .graph_builder import GraphBuilder
from .tensors import Tensor

__all__ = ["Norm"]

LAYER_NORM_EPSILON = 1e-5
"""As in GPTJX, and torch's default; csrc/core/kernels/linear.hpp has it too."""


@dataclass(frozen=True)
class Norm:
    """A layer norm's parameters."""

    name: str
    """As the checkpoint's parameters begin, without "transformer."."""
    scale: Tensor
    bias: Tensor | None
    """Released checkpoints have j.bias although their other norms have none."""

    def parameters(self, graph: GraphBuilder) -> list[str]:
        """Scale and bias as inputs of an operator; a bias that is missing is "", which leaves an input out."""
        return [graph.tensor(self.scale), "" if self.bias is None else graph.tensor(self.bias)]

    def apply(self, graph: GraphBuilder, x: str, output: str | None = None) -> str:
        """Emit LayerNormalization of x; of the same x only once."""
        name = output or self.name
        for node in graph.nodes:
            if node.op_type == "LayerNormalization" and node.input[:2] == [x, self.scale.name]:
                return str(node.output[0])
        if any(name in node.output for node in graph.nodes):
            name = f"{self.name}.of_{x}"
        inputs = [x, *filter(None, self.parameters(graph))]
        return graph.node("LayerNormalization", inputs, name, axis=-1, epsilon=LAYER_NORM_EPSILON)
