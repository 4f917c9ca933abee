"""Muon: gradient descent with momentum whose steps are orthogonal matrices."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalized"]

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of the quintic a x + b x^3 + c x^5, which brings every singular value near 1 in five iterations.
Source: K. Jordan, "Muon: An optimizer for hidden layers in neural networks", 2024."""


def orthogonalized(matrix: Tensor) -> Tensor:
    """About U V^T for a matrix U S V^T: all its singular values brought into roughly 0.7 ... 1.2."""
    a, b, c = COEFFICIENTS
    wide = matrix.mT if matrix.size(0) > matrix.size(1) else matrix  # the smaller Gram matrix
    x = wide / (wide.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    out: Tensor = x.mT if matrix.size(0) > matrix.size(1) else x
    return out


class Muon(torch.optim.Optimizer):
    """For the weight matrices of hidden layers; embeddings and vectors need another optimizer.

    Args:
        parameters: matrices [out, in].
        lr: change per step, in units of an orthogonal matrix (times sqrt(out / in) for tall ones).
        momentum: of the gradients' moving average, used as in Nesterov's method.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["average"] = torch.zeros_like(parameter)
                average = state["average"]
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalized(parameter.grad.lerp(average, group["momentum"]))
                rows, columns = parameter.shape
                parameter.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)
