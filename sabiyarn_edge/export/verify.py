"""Compares an exported graph with the torch model, number by number and token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ExportError
from ..model_folder.config import ModelConfig
from .decoder_graph import KEY_TILE
from .log_probs import log_softmax
from .plain_decoder import PlainDecoder
from .reference import Reference
from .weight_formats import product_bound

__all__ = ["Verification", "logit_bound", "verify_export"]

FLOAT16_CACHE_BOUND = 0.03
"""Largest logit difference, as a fraction of the logits' spread, that a float16 cache may add to that of the
weights. Queries, keys, values and the attention's output are rounded to 11 bits in every layer: measured 8e-4
of the spread on random models, 2e-3 on a trained one."""


INT8_CACHE_BOUND = 0.3
"""The same of an int8 cache: measured 0.02 on random models, 0.09 on a trained one. The prompt is random, and a key
that is larger than any in the calibration text is clipped."""

CACHE_BOUNDS = {"float32": 0.0, "float16": FLOAT16_CACHE_BOUND, "int8": INT8_CACHE_BOUND}


def logit_bound(dtype: str, kv_cache_dtype: str) -> float:
    """Largest logit difference that an export may have, as a fraction of the logits' spread.

    A wrong graph (a position off by one, a lost bias, a wrong scale) is off by half the spread to several
    times the spread, so the bounds tell rounding from mistakes; those of int8 and int4, whose activations are
    rounded too, only from grave ones.
    """
    return product_bound(dtype) + CACHE_BOUNDS[kv_cache_dtype]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How an exported graph differs from the torch model's full, uncached forward."""

    prompt_tokens: int
    prefill_chunks: list[int]
    """Lengths of the pieces in which the prompt was fed, tokens."""
    generated_tokens: int
    logit_spread: float
    """Standard deviation of the reference's logits over the vocabulary, mean over positions."""
    largest_prefill_difference: float
    """Largest absolute difference of any logit over the prompt's positions."""
    largest_decode_difference: float
    """The same over the generated positions, fed one by one."""
    median_difference: float
    """Of the largest difference at each position, prompt's and generated."""
    routed: bool
    """Whether the model is a mixture of experts."""
    difference_bound: float
    """What neither largest difference may pass; of a mixture, what the median may not. Where two experts' scores are
    nearly equal, rounding sends a token to the other one, and its logits differ by more than rounding."""
    mean_kl_divergence: float
    """Of the reference's next-token distribution from the graph's, mean over all positions, nats."""
    top1_agreement: float
    """Share of all positions, the random prompt's included, at which both find the same token likeliest."""
    greedy_agreement: int
    """Of generated_tokens, how many the graph chooses too, given the reference's tokens before each."""
    greedy_run_agreement: int
    """Tokens that a greedy run of the graph on its own shares with the reference's before they differ."""

    def check(self) -> None:
        """Raise ExportError if a difference passes the bound."""
        # NumPy's max keeps NaN, Python's may not.
        worst = np.max([self.largest_prefill_difference, self.largest_decode_difference])
        wrong = self.median_difference if self.routed and np.isfinite(worst) else worst
        if not wrong <= self.difference_bound:
            where = " at half of the positions" if self.routed else ""
            raise ExportError(
                f"the exported graph does not reproduce the model: a logit differs by {wrong:.3g}{where}, and at "
                f"most {self.difference_bound:.3g} is rounding (the logits' spread is "
                f"{self.logit_spread:.3g}). Nothing was written. If keys or values are beyond 65504, where float16 "
                "ends, export with --kv-cache-dtype float32 or int8; if weights are too uneven for 8 or 4 bits, with "
                "--dtype float32."
            )


def verify_export(
    folder: Path,
    config: ModelConfig,
    reference: Reference,
    *,
    progress: Callable[[int], object] = lambda n: None,
) -> Verification:
    """Run the graph over the reference's tokens, the prompt in chunks and the rest one by one; then greedily.

    Args:
        progress: told the number of tokens after each step; 2 * generated + prompt in all.

    Raises:
        ExportError: onnxruntime cannot load or run the graph.
    """
    prompt = reference.prompt_length
    chunks = _chunks(prompt)
    try:
        decoder = PlainDecoder(folder, config, rows=1, capacity=_capacity(len(reference.tokens)))
        logits = _teacher_forced(decoder, reference, chunks, progress)
        choices = _greedy_run(decoder, reference, progress)
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise ExportError(f"onnxruntime cannot run the exported graph: {error}") from error
    differences = np.abs(logits - reference.logits).max(axis=-1)
    spread = float(reference.logits.std(axis=-1).mean())
    best, expected = logits.argmax(axis=-1), reference.logits.argmax(axis=-1)
    return Verification(
        prompt_tokens=prompt,
        prefill_chunks=chunks,
        generated_tokens=len(reference.tokens) - prompt,
        logit_spread=spread,
        largest_prefill_difference=float(differences[:prompt].max()),
        largest_decode_difference=float(differences[prompt:].max(initial=0.0)),
        median_difference=float(np.median(differences)),
        routed=config.gptjx.use_moe,
        difference_bound=logit_bound(config.dtype, config.kv_cache_dtype) * spread,
        mean_kl_divergence=_mean_kl_divergence(reference.logits, logits),
        top1_agreement=float((best == expected).mean()),
        greedy_agreement=int((best[prompt - 1 : -1] == expected[prompt - 1 : -1]).sum()),
        greedy_run_agreement=_shared_length(choices, reference.tokens[prompt:].tolist()),
    )


def _teacher_forced(
    decoder: PlainDecoder, reference: Reference, chunks: list[int], progress: Callable[[int], object]
) -> NDArray[np.float32]:
    """Logits [tokens, vocab_size]: the prompt fed in chunks, the reference's continuation token by token."""
    logits = np.empty_like(reference.logits)
    begin = 0
    for count in chunks + [1] * (len(reference.tokens) - reference.prompt_length):
        logits[begin : begin + count] = decoder.step(reference.tokens[begin : begin + count], row=0)
        begin += count
        progress(count)
    return logits


def _greedy_run(decoder: PlainDecoder, reference: Reference, progress: Callable[[int], object]) -> list[int]:
    """The graph's own continuation of the prompt, whose keys and values are in the cache already."""
    last = reference.prompt_length - 1
    decoder.lengths[0] = last  # the prompt's last token is fed again, for its logits
    token = int(reference.tokens[last])
    choices: list[int] = []
    for _ in range(len(reference.tokens) - reference.prompt_length):
        token = int(decoder.step(np.array([token]), row=0).argmax())
        choices.append(token)
        progress(1)
    return choices


def _chunks(prompt: int) -> list[int]:
    """Uneven pieces of a prompt: a first chunk, a single token, a later chunk."""
    half = (prompt + 1) // 2
    return [length for length in (half, min(1, prompt - half), prompt - half - 1) if length > 0]


def _capacity(positions: int) -> int:
    """The next power of two above: more than is used, as in the runtime; and whole tiles of keys."""
    return max(1 << positions.bit_length(), KEY_TILE)


def _mean_kl_divergence(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    """Mean over positions of sum p log(p / q), p and q the softmax of the two rows of logits; in nats."""
    total = 0.0
    for row_expected, row_actual in zip(expected, actual, strict=True):
        log_p, log_q = log_softmax(row_expected), log_softmax(row_actual)
        total += float((np.exp(log_p) * (log_p - log_q)).sum())
    return total / len(expected)


def _shared_length(ours: list[int], theirs: list[int]) -> int:
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            return index
    return len(ours)
