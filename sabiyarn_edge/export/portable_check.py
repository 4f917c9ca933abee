"""Compares a portable graph with the torch model: rows of unequal lengths, in chunks, under plain onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from ..errors import ExportError
from ..model_folder.config import PORTABLE_FOLDER, GPTJXConfig
from ..modeling import GPTJXForCausalLM
from .finite import check_computed
from .portable_folder import GRAPH_FILE
from .tensors import Array

__all__ = ["PortableReference", "PortableVerification", "make_portable_reference", "verify_portable"]

TOKENS = 48
"""Of the longest row, where block_size has room for them."""

BOUNDS = {"float32": 1e-3, "float16": 0.05}
"""Largest logit difference by the dtype of the matrices, as a fraction of the logits' spread. A wrong graph is off by
half the spread or more. float32: only the order of summation differs, measured 1e-6 to 6e-6. float16: the reference
has the checkpoint's weights and the graph has them rounded to 11 bits, measured 2e-3."""


@dataclass(frozen=True)
class PortableReference:
    """Rows of random tokens, and what the torch model computes of each alone, uncached."""

    rows: list[NDArray[np.int64]]
    """[tokens] each; the first is the longest."""
    logits: list[NDArray[np.float32]]
    """[tokens, vocab_size] of each row."""


@dataclass(frozen=True, kw_only=True)
class PortableVerification:
    """How a portable graph differs from the torch model with the checkpoint's weights."""

    logit_spread: float
    """Standard deviation of the reference's logits over the vocabulary, mean over positions."""
    largest_difference: float
    """Largest absolute difference of any logit."""
    median_difference: float
    """Of the largest difference at each position."""
    routed: bool
    """Whether the model is a mixture of experts."""
    difference_bound: float
    """What the largest difference may not pass; of a mixture, what the median may not (see Verification)."""

    def check(self) -> None:
        """Raise ExportError if the difference passes the bound."""
        wrong = self.median_difference if self.routed else self.largest_difference
        if not (wrong <= self.difference_bound and np.isfinite(self.largest_difference)):  # NaN too
            where = " at half of the positions" if self.routed else ""
            raise ExportError(
                f"the portable graph does not reproduce the model: a logit differs by {wrong:.3g}{where}, "
                f"and at most {self.difference_bound:.3g} is rounding (the logits' spread is "
                f"{self.logit_spread:.3g}). Nothing was written. If weights are float16, try --dtype float32."
            )


def make_portable_reference(model: GPTJXForCausalLM, block_size: int, *, seed: int = 0) -> PortableReference:
    """Run the torch model, which must still have the checkpoint's own weights.

    Args:
        block_size: positions that the export will have, at most the model's own.
        seed: of the random tokens.

    Raises:
        CheckpointError: the model gives NaN or infinite logits.
    """
    rng = np.random.default_rng(seed)
    longest = min(TOKENS, block_size)
    rows = [rng.integers(model.config.vocab_size, size=length) for length in (longest, (longest + 1) // 2)]
    with torch.inference_mode():
        logits = [model(torch.from_numpy(row)[None]).logits[0] for row in rows]
    for row in logits:
        check_computed(row, "logits for random tokens")
    return PortableReference(rows, [row.numpy() for row in logits])


def verify_portable(
    folder: Path, config: GPTJXConfig, dtype: str, reference: PortableReference
) -> PortableVerification:
    """Feed the rows of the reference to folder/portable, padded on the left, in three chunks.

    Args:
        folder: the model folder.
        dtype: how the graph stores matrices, "float32" or "float16".

    Raises:
        ExportError: onnxruntime cannot load or run the graph.
    """
    try:
        logits = _run(folder / PORTABLE_FOLDER / GRAPH_FILE, config, reference.rows)
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise ExportError(f"onnxruntime cannot run the portable graph: {error}") from error
    spread = float(np.concatenate([row.std(axis=-1) for row in reference.logits]).mean())
    differences = np.concatenate(
        [
            np.abs(row[len(row) - len(expected) :] - expected).max(axis=-1)
            for row, expected in zip(logits, reference.logits, strict=True)
        ]
    )
    return PortableVerification(
        logit_spread=spread,
        largest_difference=float(np.max(differences)),  # NumPy's max keeps NaN, Python's may not
        median_difference=float(np.median(differences)),
        routed=config.use_moe,
        difference_bound=BOUNDS[dtype] * spread,
    )


def _run(graph: Path, config: GPTJXConfig, rows: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Logits [rows, longest, vocab_size] under a causal mask."""
    options = onnxruntime.SessionOptions()
    # Spinning threads gain little here, and lose much on a machine that is busy.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    longest = len(rows[0])
    padding = np.array([longest - len(row) for row in rows])[:, None]
    tokens = np.stack([np.pad(row, (longest - len(row), 0)) for row in rows])
    keys = np.arange(longest)
    hidden = (keys > keys[:, None]) | (keys < padding[:, :, None])  # [rows, query, key]
    mask = np.where(hidden, -np.inf, 0).astype(np.float32)[:, None]
    empty = np.zeros((len(rows), config.n_heads, 0, config.head_dim), np.float32)
    past: dict[str, Array] = {
        f"past_key_values.{i}.{part}": empty for i in range(config.n_layer) for part in ("key", "value")
    }
    half = (longest + 1) // 2
    pieces = []
    for begin, end in ((0, half), (half, half + 1), (half + 1, longest)):
        if begin < end <= longest:
            feeds = {
                "input_ids": tokens[:, begin:end],
                "position_ids": np.maximum(keys[begin:end] - padding, 0),
                "attention_mask": mask[:, :, begin:end, :end],
            }
            logits, *present = session.run(None, {**feeds, **past})
            past = dict(zip(past, present, strict=True))
            pieces.append(logits)
    return np.concatenate(pieces, axis=1)
