"""The shortest correct way to run decoder.onnx: onnxruntime with our operators, and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..engine.operators import register_operators
from ..model_folder.config import ModelConfig
from .tensors import Array

__all__ = ["PlainDecoder"]


class PlainDecoder:
    """Some rows of tokens and their KV cache, in NumPy arrays that are bound as past and appended to in place.

    An export is checked with this loop and not with the runtime it is meant for, so that one mistake cannot
    hide in both.
    """

    def __init__(self, folder: Path, config: ModelConfig, *, rows: int, capacity: int) -> None:
        """
        Args:
            folder: the model folder; of its files only the graph and the weights are read.
            capacity: positions that the cache has room for, more than will be used.
        """
        self._vocab_size = config.gptjx.vocab_size
        options = onnxruntime.SessionOptions()
        register_operators(options)
        # Spinning threads gain little here, and lose much on a machine that is busy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(folder / config.graphs["decoder"]), options, providers=["CPUExecutionProvider"]
        )
        shape = (rows, config.gptjx.n_heads, capacity, config.gptjx.head_dim)
        self._cache: dict[str, Array] = {
            f"{layer}.{side}": np.zeros(shape, config.kv_cache_dtype)
            for layer in range(config.gptjx.n_layer)
            for side in ("key", "value")
        }
        self.lengths = np.zeros(rows, np.int64)
        """[rows] tokens in the cache of each row. Setting one lower forgets its last tokens."""

    def step(
        self, tokens: Array, *, logits_index: Sequence[int] | None = None, row: int | None = None
    ) -> NDArray[np.float32]:
        """Append tokens and compute logits.

        Args:
            tokens: integers [rows, T], or [T] with `row`. T > 1 on top of a past needs one row.
            logits_index: of the T positions, those whose logits are wanted; default: all.
            row: run this row alone.

        Returns:
            float32 [rows, n, vocab_size], or [n, vocab_size] with `row`.
        """
        chosen = slice(None) if row is None else slice(row, row + 1)
        tokens = np.atleast_2d(tokens)
        count = tokens.shape[1]
        past = self.lengths[chosen]
        feeds: dict[str, Array] = {
            "input_ids": tokens.astype(np.int64),
            "position_ids": past[:, None] + np.arange(count)[None, :],
            "seqlens_k": (past + count - 1).astype(np.int32),
            "logits_index": np.array(range(count) if logits_index is None else logits_index, np.int64),
        }
        logits = np.empty((len(tokens), len(feeds["logits_index"]), self._vocab_size), np.float32)
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, whole in self._cache.items():
            array = whole[chosen]  # rows are contiguous, so one row is a cache of batch 1
            binding.bind_input(
                f"past_key_values.{name}", "cpu", 0, array.dtype, array.shape, array.ctypes.data
            )
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self._session.run_with_iobinding(binding)
        self.lengths[chosen] += count
        return logits if row is None else logits[0]
