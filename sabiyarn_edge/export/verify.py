"""Compares an exported graph with the torch model, number by number and token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..errors import ExportError
from .plain_decoder import PlainDecoder
from .reference import Reference

__all__ = ["Verification", "logit_bound", "verify_export"]

FLOAT32_BOUND = 1e-3
"""Of the logits' spread, with float32 weights and cache. Only the order of summation differs from torch:
rounding errors of 2^-24 grow to about 1e-5 of the spread over twelve layers."""

FLOAT16_CACHE_BOUND = 0.03
"""Of the spread, with a float16 cache. Queries, keys, values and the attention's output are rounded to 11
bits, relative error 2^-12 on average, in every layer; a dozen layers and outliers of trained models multiply
it."""

FLOAT16_WEIGHTS_BOUND = 0.03
"""Of the spread, with float16 weights: as for the cache, here of each weight once."""


def logit_bound(dtype: str, kv_cache_dtype: str) -> float:
    """Largest logit difference that an export may have, as a fraction of the logits' spread.

    A wrong graph (a position off by one, a missing bias, a wrong scale) is off by a good part of the spread,
    so the bounds tell rounding from mistakes.
    """
    return (
        FLOAT32_BOUND
        + (FLOAT16_CACHE_BOUND if kv_cache_dtype == "float16" else 0.0)
        + (FLOAT16_WEIGHTS_BOUND if dtype == "float16-weights" else 0.0)
    )


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
    difference_bound: float
    """What neither difference may pass."""
    greedy_agreement: int
    """Of generated_tokens, how many the graph chooses too when it is given the reference's tokens before
    each."""
    greedy_run_agreement: int
    """How many tokens a greedy run of the graph on its own shares with the reference's before the first that
    differs.
    """

    def check(self) -> None:
        """Raise ExportError if a difference passes the bound."""
        worst = np.max(
            [self.largest_prefill_difference, self.largest_decode_difference]
        )  # keeps NaN, as max() does not
        if not worst <= self.difference_bound:
            raise ExportError(
                f"the exported graph does not reproduce the model: a logit differs by {worst:.3g}, and at "
                f"most {self.difference_bound:.3g} is rounding (the logits' spread is "
                f"{self.logit_spread:.3g}). Nothing was written. Some values may be too large for "
                "float16: try --kv-cache-dtype float32 and --dtype float32."
            )


def verify_export(
    folder: Path,
    config: ModelConfig,
    reference: Reference,
    *,
    progress: Callable[[int], object] = lambda n: None,
) -> Verification:
    """Run the graph over the reference's tokens: the prompt in chunks, the rest one by one, then greedily
    alone.

    Args:
        progress: told the number of tokens after each step; 2 * generated + prompt in all.

    Raises:
        ExportError: onnxruntime cannot load or run the graph.
    """
    tokens, prompt = reference.tokens, reference.prompt_length
    generated = len(tokens) - prompt
    chunks = _chunks(prompt)
    try:
        decoder = PlainDecoder(folder, config, rows=1, capacity=_capacity(len(tokens)))
        differences = []
        for chunk in chunks:
            begin = int(decoder.lengths[0])
            logits = decoder.step(tokens[begin : begin + chunk], row=0)
            differences.append(_largest_difference(logits, reference.logits[begin : begin + chunk]))
            progress(chunk)
        prefill_difference = float(np.max(differences))
        choices = [int(logits[-1].argmax())]
        differences = [0.0]
        for position in range(prompt, len(tokens)):
            logits = decoder.step(tokens[position : position + 1], row=0)
            differences.append(_largest_difference(logits, reference.logits[position : position + 1]))
            choices.append(int(logits[-1].argmax()))
            progress(1)
        decoder.lengths[0] = prompt - 1  # the same keys and values again, then the graph's own choices
        own = tokens[prompt - 1 : prompt].tolist()
        for _ in range(generated):
            own.append(int(decoder.step(np.array(own[-1:]), logits_index=[0], row=0).argmax()))
            progress(1)
    except (
        Exception
    ) as error:  # onnxruntime raises bare RuntimeError, and types of its own that derive from it
        raise ExportError(f"onnxruntime cannot run the exported graph: {error}") from error
    expected = reference.logits[prompt - 1 : -1].argmax(axis=-1)
    spread = float(reference.logits.std(axis=-1).mean())
    return Verification(
        prompt_tokens=prompt,
        prefill_chunks=chunks,
        generated_tokens=generated,
        logit_spread=spread,
        largest_prefill_difference=prefill_difference,
        largest_decode_difference=float(np.max(differences)),
        difference_bound=logit_bound(config.dtype, config.kv_cache_dtype) * spread,
        greedy_agreement=int((np.array(choices[:-1]) == expected).sum()),
        greedy_run_agreement=_shared_length(own[1:], tokens[prompt:].tolist()),
    )


def _chunks(prompt: int) -> list[int]:
    """Uneven pieces of a prompt, one of a single token among them: first chunk, later chunk, decode-like
    chunk."""
    half = (prompt + 1) // 2
    return [length for length in (half, min(1, prompt - half), prompt - half - 1) if length > 0]


def _capacity(positions: int) -> int:
    """The next power of two above: more than is used, as in the runtime."""
    return 1 << positions.bit_length()


def _largest_difference(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(logits - expected).max())


def _shared_length(ours: list[int], theirs: list[int]) -> int:
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            return index
    return len(ours)
