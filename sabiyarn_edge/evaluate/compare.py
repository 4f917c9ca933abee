"""compare_exports: how far the next-token distributions of exports are apart, on a text of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..generator import EdgeGenerator
from ..options.overflow import Overflow

__all__ = ["PIECE_TOKENS", "compare_exports"]

PIECE_TOKENS = 256
"""Texts are cut into pieces of so many tokens: the logits of one piece are held, 51 MiB for SabiYarn-125M."""
MIB = 2**20


def compare_exports(
    models: Sequence[str | Path],
    texts: Iterable[str],
    *,
    threads: int | None = None,
    told: Callable[[int], object] = lambda tokens: None,
) -> dict[str, Any]:
    """Compare exports of one checkpoint: float32, int8, int4, an int8 KV cache.

    Args:
        models: model folders; the first is what the others are compared with.
        texts: any number of them; empty ones are left out.
        threads: None: all CPUs at hand.
        told: called with the number of tokens after each piece.

    Returns:
        A report, ready for JSON: of each model perplexity, mean KL divergence of the first model's distribution from
        it (nats), the share of tokens after which both find the same token likeliest, and the weights' size.

    Raises:
        InvalidInputError: fewer than two models, no text of two tokens, or models with different tokenizers.
        ModelFolderError: a model cannot be loaded.
    """
    if len(models) < 2:
        raise InvalidInputError("there is nothing to compare with. Give two models or more.")
    names = [str(model) for model in models]
    generators = [EdgeGenerator.from_pretrained(model, num_threads=threads) for model in models]
    try:
        _check_alike(generators, names)
        sums = [_Sums() for _ in models]
        for ids in _pieces(generators[0], texts):
            rows = [_log_probs(generator, ids) for generator in generators]
            targets = np.array(ids[1:])
            for own, log_probs in zip(sums, rows, strict=True):
                own.add(rows[0], log_probs, targets)
            told(len(targets))
    finally:
        for generator in generators:
            generator.close()
    if not sums[0].tokens:
        raise InvalidInputError("there is no text of two tokens or more to compare on.")
    return {
        "tokens": sums[0].tokens,
        "piece_tokens": PIECE_TOKENS,
        "models": {
            name: {
                **own.as_dict(),
                "dtype": generator.config.dtype,
                "kv_cache_dtype": generator.config.kv_cache_dtype,
                "weights_mib": generator.config.weights_bytes / MIB,
            }
            for name, own, generator in zip(names, sums, generators, strict=True)
        },
    }


class _Sums:
    """Over all tokens that another follows."""

    def __init__(self) -> None:
        self.tokens = self._agreed = 0
        self._loss = self._divergence = 0.0

    def add(
        self, expected: NDArray[np.float64], log_probs: NDArray[np.float64], targets: NDArray[np.int64]
    ) -> None:
        """Count a piece; both [tokens, vocab_size]."""
        self.tokens += len(targets)
        self._loss -= float(log_probs[np.arange(len(targets)), targets].sum())
        self._divergence += float((np.exp(expected) * (expected - log_probs)).sum())
        self._agreed += int((expected.argmax(axis=1) == log_probs.argmax(axis=1)).sum())

    def as_dict(self) -> dict[str, float]:
        """Means."""
        return {
            "perplexity": math.exp(self._loss / self.tokens),
            "mean_kl_divergence": max(self._divergence / self.tokens, 0.0),  # rounding may take it below
            "top1_agreement": self._agreed / self.tokens,
        }


def _check_alike(generators: Sequence[EdgeGenerator], names: Sequence[str]) -> None:
    first = generators[0]
    if first.tokenizer is None:
        raise InvalidInputError(f"{names[0]} has no tokenizer. Put the model's tokenizer.json into it.")
    content = (first.folder / "tokenizer.json").read_bytes()
    for generator, name in zip(generators[1:], names[1:], strict=True):
        file = generator.folder / "tokenizer.json"
        if not file.is_file() or file.read_bytes() != content:
            raise InvalidInputError(
                f"{name} and {names[0]} have different tokenizers, so their tokens cannot be compared."
            )
        if generator.config.gptjx.vocab_size != first.config.gptjx.vocab_size:
            raise InvalidInputError(f"{name} and {names[0]} have vocabularies of different sizes.")


def _pieces(generator: EdgeGenerator, texts: Iterable[str]) -> Iterator[list[int]]:
    """Ids of two tokens or more."""
    assert generator.tokenizer is not None
    most = min(PIECE_TOKENS, generator.max_length)
    for text in texts:
        ids = generator.tokenizer.encode(text) if text.strip() else []
        for first in range(0, len(ids), most):
            if len(ids) - first > 1:
                yield ids[first : first + most]


def _log_probs(generator: EdgeGenerator, ids: list[int]) -> NDArray[np.float64]:
    """Natural log-probabilities [tokens - 1, vocab_size] of what follows each token but the last."""
    rows: list[NDArray[np.float32]] = []
    scoring = generator._scoring(ids, None, Overflow(), listener=lambda logits: rows.append(logits.copy()))
    generator._engine.run([scoring])
    logits = np.array(rows, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
