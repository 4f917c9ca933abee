"""The shortest correct way to run decoder_masked.onnx: onnxruntime with our operators, and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..engine.operators import register_operators
from ..model_folder.config import ModelConfig
from .tensors import Array

__all__ = ["PlainMaskedDecoder"]


class PlainMaskedDecoder:
    """One row of tokens under a causal mask, whose past grows by concatenation: slow, and hard to get wrong."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        options = onnxruntime.SessionOptions()
        register_operators(options)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(folder / config.graphs["decoder_masked"]), options, providers=["CPUExecutionProvider"]
        )
        empty = (1, config.gptjx.n_heads, 0, config.gptjx.head_dim)
        self._past: dict[str, Array] = {
            f"{layer}.{side}": np.zeros(empty, config.kv_cache_dtype)
            for layer in range(config.gptjx.n_layer)
            for side in ("key", "value")
        }
        self.lengths = np.zeros(1, np.int64)
        """[1] tokens of the row. Setting it lower forgets the last ones."""

    def step(
        self, tokens: Array, *, logits_index: Sequence[int] | None = None, row: int | None = 0
    ) -> NDArray[np.float32]:
        """Append tokens [T] and compute the logits [n, vocab_size] of those wanted (all)."""
        assert row == 0
        count, past = len(tokens), int(self.lengths[0])
        mask = np.triu(np.full((count, past + count), -np.inf, np.float32), k=past + 1)
        feeds: dict[str, Array] = {
            "input_ids": np.asarray(tokens, np.int64)[None],
            "position_ids": np.arange(past, past + count)[None],
            "logits_index": np.array(range(count) if logits_index is None else logits_index, np.int64),
            "attention_mask": mask[None, None],
        }
        for name, array in self._past.items():
            feeds[f"past_key_values.{name}"] = array[:, :, :past]
        names = ["logits", *(f"present.{name}" for name in self._past)]
        logits, *present = self._session.run(names, feeds)
        for (name, array), new in zip(self._past.items(), present, strict=True):
            self._past[name] = np.concatenate([array[:, :, :past], new], axis=2)
        self.lengths[0] += count
        row_logits: NDArray[np.float32] = logits[0]
        return row_logits
