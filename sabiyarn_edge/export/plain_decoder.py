"""The shortest correct way to run decoder.onnx: onnxruntime with our operators, and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..engine.operators import register_operators
from ..model_folder.config import ModelConfig
from .decoder_graph import KEY_TILE, SEGMENT_FIELDS
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
        shape = config.gptjx
        self._vocab_size, self._num_positions = shape.vocab_size, capacity
        options = onnxruntime.SessionOptions()
        register_operators(options)
        # Spinning threads gain little here, and lose much on a machine that is busy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(folder / config.graph), options, providers=["CPUExecutionProvider"]
        )
        capacity += -capacity % KEY_TILE
        key = (rows, shape.n_heads, capacity // KEY_TILE, shape.head_dim, KEY_TILE)
        value = (rows, shape.n_heads, capacity, shape.head_dim)
        self._cache: dict[str, Array] = {
            f"past_key_values.{layer}.{name}": np.zeros(dimensions, config.kv_cache_dtype)
            for layer in range(shape.n_layer)
            for name, dimensions in (("key", key), ("value", value))
        }
        self.lengths = np.zeros(rows, np.int64)
        """[rows] tokens in the cache of each row. Setting one lower forgets its last tokens."""

    def step(
        self, tokens: Array, *, logits_index: Sequence[int] | None = None, row: int | None = None
    ) -> NDArray[np.float32]:
        """Append tokens and compute logits.

        Args:
            tokens: integers [rows, T], or [T] with `row`.
            logits_index: of the T positions, those whose logits are wanted; default: all.
            row: run this row alone.

        Returns:
            float32 [rows, n, vocab_size], or [n, vocab_size] with `row`.
        """
        chosen = np.arange(len(self.lengths)) if row is None else np.array([row])
        tokens = np.atleast_2d(tokens)
        count = tokens.shape[1]
        wanted = np.arange(count) if logits_index is None else np.array(logits_index, np.int64)
        past = self.lengths[chosen]
        segments = np.zeros((len(chosen), SEGMENT_FIELDS), np.int64)
        segments[:, 0], segments[:, 1], segments[:, 2], segments[:, 4] = chosen, count, past + count, -1
        feeds: dict[str, Array] = {
            "input_ids": tokens.astype(np.int64).reshape(-1),
            "position_ids": (past[:, None] + np.arange(count)).reshape(-1),
            "segments": segments,
            "window": np.array([self._num_positions, 0], np.int64),
            "attention_mask": np.empty(0, np.float32),
            "logits_index": (np.arange(len(chosen))[:, None] * count + wanted).reshape(-1),
        }
        logits = np.empty((len(chosen), len(wanted), self._vocab_size), np.float32)
        binding = self._session.io_binding()
        for name, array in {**feeds, **self._cache}.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        flat = (logits.shape[0] * logits.shape[1], self._vocab_size)
        binding.bind_output("logits", "cpu", 0, np.float32, flat, logits.ctypes.data)
        self._session.run_with_iobinding(binding)
        self.lengths[chosen] += count
        return logits if row is None else logits[0]
