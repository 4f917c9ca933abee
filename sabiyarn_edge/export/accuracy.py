"""How much of the float32 model's accuracy an export keeps on text, and how far its weights are from float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..model_folder.config import ModelConfig
from ..modeling import GPTJXForCausalLM
from .finite import check_computed
from .log_probs import log_softmax
from .plain_decoder import PlainDecoder
from .weight_format import Matrix, WeightFormat

__all__ = ["Accuracy", "WeightError", "measure_accuracy", "weight_errors"]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """decoder.onnx beside the checkpoint in float32, on the same text."""

    text: str
    """The file, or how else the text came about, and how long the pieces are that it was cut into."""
    tokens: int
    """Of the text; perplexities are over all but the first of each piece."""
    perplexity_float32: float
    """exp(mean negative log-probability) by the checkpoint in float32."""
    perplexity: float
    """The same by the export."""
    mean_kl_divergence: float
    """Of float32's next-token distribution from the export's, mean over all tokens, nats."""
    top1_agreement: float
    """Share of all tokens after which both find the same token likeliest."""

    @property
    def perplexity_change(self) -> float:
        """As a fraction: 0.01 is one percent worse."""
        return self.perplexity / self.perplexity_float32 - 1


@dataclass(frozen=True, kw_only=True)
class WeightError:
    """How one matrix is stored, and what that costs."""

    storage: str
    """float32, float16, int8 or int4."""
    block_size: int | None
    """Weights that share a scale; None for floats."""
    largest_error: float
    """Largest absolute difference of any weight from the checkpoint's."""
    relative_error: float
    """Root of the mean square of all differences, as a fraction of that of the weights."""


def measure_accuracy(
    model: GPTJXForCausalLM,
    folder: Path,
    config: ModelConfig,
    texts: Sequence[torch.Tensor],
    source: str,
    *,
    progress: Callable[[int], object] = lambda n: None,
) -> Accuracy:
    """Run both over texts, piece by piece, so that only one piece's logits are in memory.

    Args:
        model: the checkpoint in float32.
        texts: ids [1, length], of 2 tokens or more.
        source: becomes Accuracy.text.
        progress: told the number of tokens after each piece.

    Raises:
        CheckpointError: the model gives NaN or infinite logits.
    """
    capacity = 1 << max(piece.shape[1] for piece in texts).bit_length()
    decoder = PlainDecoder(folder, config, rows=1, capacity=capacity)
    loss_float32 = loss = divergence = 0.0
    tokens = predicted = agreed = 0
    for piece in texts:
        with torch.inference_mode():
            logits = model(piece).logits[0]
        check_computed(logits, "logits for the evaluation text")
        expected = logits.numpy()
        decoder.lengths[0] = 0
        actual = decoder.step(piece.numpy(), row=0)
        for i, (row_expected, row_actual) in enumerate(zip(expected, actual, strict=True)):
            log_p, log_q = log_softmax(row_expected), log_softmax(row_actual)
            divergence += float((np.exp(log_p) * (log_p - log_q)).sum())
            agreed += int(log_p.argmax() == log_q.argmax())
            if i + 1 < len(expected):
                target = int(piece[0, i + 1])
                loss_float32, loss = loss_float32 - log_p[target], loss - log_q[target]
        tokens, predicted = tokens + len(expected), predicted + len(expected) - 1
        progress(len(expected))
    return Accuracy(
        text=source,
        tokens=tokens,
        perplexity_float32=_exp(loss_float32 / predicted),
        perplexity=_exp(loss / predicted),
        mean_kl_divergence=divergence / tokens,
        top1_agreement=agreed / tokens,
    )


def weight_errors(matrices: Iterable[Matrix], weights: WeightFormat) -> dict[str, WeightError]:
    """Name of each matrix -> how it is stored and what that costs."""
    found = {}
    for matrix in matrices:
        values = matrix.load()
        errors = weights.restored(matrix) - values
        power = float(np.square(values, dtype=np.float64).mean())
        found[matrix.name] = WeightError(
            storage=weights.weight_type(matrix),
            block_size=weights.block_size(matrix),
            largest_error=float(np.abs(errors).max()),
            relative_error=math.sqrt(float(np.square(errors, dtype=np.float64).mean()) / (power or 1.0)),
        )
    return found


def _exp(loss: float) -> float:
    return math.exp(min(loss, 700.0))  # e^709 is the largest float
