"""Compares an export with the float32 export of the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sabiyarn_edge.bench.engine import random_prompt
from sabiyarn_edge.export.plain_decoder import PlainDecoder
from sabiyarn_edge.model_folder.config import ModelConfig

__all__ = ["accuracy"]

PROMPTS, TOKENS = 4, 64
_AT_ONCE = 32  # positions


def accuracy(reference: Path, folder: Path) -> dict[str, float]:
    """Compare next-token distributions over PROMPTS random texts of TOKENS tokens.

    Returns:
        mean_kl_divergence (nats, of float32's distribution from this one), top1_agreement (share of equal greedy
        choices) and mean_absolute_difference of logits.
    """
    exact, own = _logits(reference), _logits(folder)
    p, q = _log_softmax(exact), _log_softmax(own)
    return {
        "mean_kl_divergence": float((np.exp(p) * (p - q)).sum(axis=-1).mean()),
        "top1_agreement": float((exact.argmax(axis=-1) == own.argmax(axis=-1)).mean()),
        "mean_absolute_difference": float(np.abs(exact - own).mean()),
        "logit_spread": float(exact.std()),
        "positions": PROMPTS * TOKENS,
    }


def _logits(folder: Path) -> np.ndarray:
    """Return the logits, float64 [PROMPTS * TOKENS, vocab_size]."""
    config = ModelConfig.load(folder)
    decoder = PlainDecoder(folder, config, rows=1, capacity=TOKENS + 1)
    rows = []
    for seed in range(PROMPTS):
        ids = np.array(random_prompt(config.gptjx.vocab_size, TOKENS, seed))
        decoder.lengths[0] = 0
        for begin in range(0, TOKENS, _AT_ONCE):
            rows.append(decoder.step(ids[begin : begin + _AT_ONCE], row=0).astype(np.float64))
    return np.concatenate(rows)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
