"""Layer norms, as an operator or as parts of others."""

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

    def apply(self, graph: GraphBuilder, x: str, output: str) -> str:
        """Emit LayerNormalization of x."""
        inputs = [x, *filter(None, self.parameters(graph))]
        return graph.node("LayerNormalization", inputs, output, axis=-1, epsilon=LAYER_NORM_EPSILON)
