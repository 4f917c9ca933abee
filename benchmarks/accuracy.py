"""Compares an export with the float32 export of the same checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sabiyarn_edge.bench.engine import random_prompt
from sabiyarn_edge.export.log_probs import log_softmax
from sabiyarn_edge.export.plain_decoder import PlainDecoder
from sabiyarn_edge.model_folder.config import ModelConfig

__all__ = ["accuracy", "logits_of"]

PROMPTS, TOKENS = 4, 64
_AT_ONCE = 64  # tokens of a run: bounds the logits


def accuracy(reference: Path, folder: Path) -> dict[str, float]:
    """Compare next-token distributions over PROMPTS random texts of TOKENS tokens.

    Returns:
        mean_kl_divergence (nats, of float32's distribution from this one), top1_agreement (share of equal greedy
        choices) and mean_absolute_difference of logits.
    """
    exact, own = _random_logits(reference), _random_logits(folder)
    p, q = log_softmax(exact), log_softmax(own)
    return {
        "mean_kl_divergence": float((np.exp(p) * (p - q)).sum(axis=-1).mean()),
        "top1_agreement": float((exact.argmax(axis=-1) == own.argmax(axis=-1)).mean()),
        "mean_absolute_difference": float(np.abs(exact - own).mean()),
        "logit_spread": float(exact.std()),
        "positions": PROMPTS * TOKENS,
    }


def logits_of(decoder: PlainDecoder, ids: Sequence[int]) -> np.ndarray:
    """Run a text from its beginning; returns the logits after each token, float32 [len(ids), vocab_size]."""
    decoder.lengths[0] = 0
    pieces = [np.array(ids[begin : begin + _AT_ONCE]) for begin in range(0, len(ids), _AT_ONCE)]
    return np.concatenate([decoder.step(piece, row=0) for piece in pieces])


def _random_logits(folder: Path) -> np.ndarray:
    """Return the logits, float64 [PROMPTS * TOKENS, vocab_size]."""
    config = ModelConfig.load(folder)
    decoder = PlainDecoder(folder, config, rows=1, capacity=TOKENS + 1)
    texts = [random_prompt(config.gptjx.vocab_size, TOKENS, seed) for seed in range(PROMPTS)]
    return np.concatenate([logits_of(decoder, text) for text in texts]).astype(np.float64)
