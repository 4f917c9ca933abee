"""MaskedRunner: decoder_masked.onnx on the KV cache, row by row under each prompt's own mask.

The graph gives back the new keys and values only. They are copied into the cache's slots, and the cache's whole buffer
is the next run's past, so the past itself is never copied; the mask hides the slots that are not in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import DecodeState, KvCache, MaskCache
from ..calls.attention_masks import PromptMask
from ..model_folder.config import GPTJXConfig

__all__ = ["MaskedRunner"]

HIDDEN = np.float32(-np.inf)


class MaskedRunner:
    """A backend for DecodeLoop, like GraphRunner, for prompts with masks.

    Generated tokens see what their prompt's last token saw of the prompt, and the generated ones up to themselves.

    Args:
        session: the graph's `onnxruntime.InferenceSession`.
        kv_cache: `_core.KvCache` whose dtype is that of the graph's past_key_values.
        shape: the model's.
        kv_dtype: "float16", "float32" or "int8".
        prefill_options: `onnxruntime.RunOptions` for prefill runs, or None.
    """

    def __init__(
        self,
        session: Any,
        kv_cache: KvCache,
        *,
        shape: GPTJXConfig,
        kv_dtype: str,
        prefill_options: Any = None,
    ) -> None:
        self.session = session
        self.kv_cache, self.shape, self.kv_dtype = kv_cache, shape, kv_dtype
        self.causal_masks = MaskCache(largest=shape.block_size)
        self._prefill_options = prefill_options
        self._logits = np.empty((0, shape.vocab_size), np.float32)
        self._whole: list[PromptMask] = []  # of each row's prompt, as it was given
        self._last_rows: list[NDArray[np.float32]] = []  # of the mask of what is left of it
        self._decode: _Step | None = None

    @property
    def logits_address(self) -> int:
        """Where the logits [rows, vocab_size] float32 of the last step lie."""
        return self._logits.ctypes.data

    @property
    def nbytes(self) -> int:
        """Bytes of logits, masks and other arrays of the last step; causal masks are counted apart."""
        return self._logits.nbytes + (self._decode.nbytes if self._decode is not None else 0)

    def prefill(
        self,
        prompts: Sequence[Sequence[int]],
        masks: Sequence[PromptMask],
        chunk: int,
        state: DecodeState | None = None,
        whole: Sequence[PromptMask] | None = None,
    ) -> bool:
        """Run the prompts into the KV cache, which has one empty row for each.

        Args:
            masks: of each prompt.
            chunk: tokens at once, unless a mask ties more of them together.
            state: asked between chunks whether the run was cancelled or its time is over.
            whole: of the prompts that these are what is left of; None: nothing was dropped.

        Returns:
            Whether all prompts were run; the logits are then those of their last tokens.
        """
        self._decode = None
        self._logits = np.empty((len(prompts), self.shape.vocab_size), np.float32)
        self._whole = list(whole or masks)
        self._last_rows = [mask.last_row() for mask in masks]
        return all(
            self._run(row, prompt, mask, chunk, state, logits=True)
            for row, (prompt, mask) in enumerate(zip(prompts, masks, strict=True))
        )

    def rerun(
        self, row: int, tokens: Sequence[int], kept: Sequence[int], chunk: int, state: DecodeState | None
    ) -> bool:
        """Forget what `row` holds and run what is left of its text from position 0, without logits.

        Args:
            tokens: what is left.
            kept: their places in the text.

        Returns:
            Whether all tokens were run; False if `state` was cancelled or out of time.
        """
        mask = self._whole[row].of_kept(kept)
        self._last_rows[row] = mask.last_row()
        self.kv_cache.restart(row)
        return self._run(row, tokens, mask, chunk, state, logits=False)

    def _run(
        self,
        row: int,
        text: Sequence[int],
        mask: PromptMask,
        chunk: int,
        state: DecodeState | None,
        *,
        logits: bool,
    ) -> bool:
        tokens = np.asarray(text, np.int64)
        for first, count in mask.chunks(chunk):
            is_last = logits and first + count == len(tokens)
            self._run_chunk(row, tokens[first : first + count], first, mask, is_last=is_last)
            if state is not None and state.interruption():
                return False
        return True

    def _run_chunk(
        self, row: int, tokens: NDArray[np.int64], first: int, mask: PromptMask, *, is_last: bool
    ) -> None:
        count = len(tokens)
        end = self.kv_cache.begin_append(row, count)
        logits = self._logits[row : row + 1] if is_last else self._logits[:0]
        slots = self.kv_cache.capacity if first else 0
        step = _Step(self, row, 1, count, slots, logits[:, None] if is_last else logits[None])
        step.input_ids[0] = tokens
        step.position_ids[0] = np.arange(first, end)
        step.logits_index[:] = count - 1
        allowed = np.empty((count, end), np.float32)
        mask.write(first, allowed, self.causal_masks)
        step.mask[0, 0, :, :first] = allowed[:, :first]
        step.mask[0, 0, :, first:slots] = HIDDEN
        step.mask[0, 0, :, slots:] = allowed[:, first:]
        step.run(self._prefill_options)
        step.store([end])

    def compute(self, state: DecodeState) -> None:
        """Bring the KV cache's rows into the order that `state` wants and run its next tokens."""
        self.arrange(state)
        self.run_next(state)

    def arrange(self, state: DecodeState) -> None:
        """Bring the KV cache's rows into the order that `state` wants; once for each step."""
        sources: list[int] = state.row_sources.tolist()
        if sources != list(range(self.kv_cache.num_rows)):
            self.kv_cache.reorder(sources)
            self._last_rows = [self._last_rows[source] for source in sources]
            self._whole = [self._whole[source] for source in sources]

    def run_next(self, state: DecodeState) -> None:
        """Run the state's next tokens behind the KV cache's rows, which are in its order."""
        rows = range(self.kv_cache.num_rows)
        # Not the state's positions: a row whose positions have ended may have started again.
        positions = [self.kv_cache.next_position(row) for row in rows]
        ends = [self.kv_cache.begin_append(row, 1) for row in rows]
        step = self._decode_step(len(rows))
        step.input_ids[:, 0] = state.next_tokens
        step.position_ids[:, 0] = positions
        for row, end in enumerate(ends):
            self._write_row(step.mask[row, 0, 0], row, end - 1, positions[row])
        step.run(None)
        step.store(ends)

    def _decode_step(self, num_rows: int) -> _Step:
        """One new token for each row; made anew when the number of rows or the cache's buffers change."""
        if self._decode is None or not self._decode.fits(num_rows):
            if len(self._logits) < num_rows:
                self._logits = np.empty((num_rows, self.shape.vocab_size), np.float32)
            logits = self._logits[:num_rows, None]
            self._decode = _Step(self, 0, num_rows, 1, self.kv_cache.capacity, logits)
            self._decode.logits_index[:] = 0
        return self._decode

    def _write_row(self, out: NDArray[np.float32], row: int, held: int, position: int) -> None:
        """What one generated token sees.

        Args:
            out: [slots + 1], overwritten: the past's slots, then the token itself.
            held: slots [0, held) hold tokens that it may see; the token will be stored behind them.
            position: its own.
        """
        seen = self._last_rows[row]
        if held == position:  # nothing was forgotten: slots are positions
            prompt = min(len(seen), held)
            out[:prompt] = seen[:prompt]
            out[prompt:held] = 0
        else:
            at = self.kv_cache.positions(row)[:held]
            out[:held] = np.where(at < len(seen), seen[np.minimum(at, len(seen) - 1)], np.float32(0))
        out[held:-1] = HIDDEN
        out[-1] = 0

    def release(self) -> None:
        """Forget all arrays and addresses, and give causal masks back."""
        self._decode = None
        self._logits = self._logits[:0].copy()
        self._last_rows, self._whole = [], []
        self.causal_masks.free()


class _Step:
    """Arrays and addresses for runs of one shape: rows [first_row, first_row + num_rows), num_tokens new tokens each.

    Args:
        slots: of the past: the cache's capacity, or 0.
        logits: where they go, float32 [num_rows, n, vocab_size].
    """

    def __init__(
        self,
        runner: MaskedRunner,
        first_row: int,
        num_rows: int,
        num_tokens: int,
        slots: int,
        logits: NDArray[np.float32],
    ) -> None:
        cache, shape = runner.kv_cache, runner.shape
        self._cache, self._run = cache, runner.session.run_with_iobinding
        self._layout_version = cache.layout_version
        self._num_rows, self._num_tokens = num_rows, num_tokens
        self.input_ids = np.empty((num_rows, num_tokens), np.int64)
        self.position_ids = np.empty((num_rows, num_tokens), np.int64)
        self.logits_index = np.empty(logits.shape[1], np.int64)
        self.mask = np.empty((num_rows, 1, num_tokens, slots + num_tokens), np.float32)
        self._logits = logits  # kept alive: onnxruntime has its address

        self._binding = runner.session.io_binding()
        for name, array in (
            ("input_ids", self.input_ids),
            ("position_ids", self.position_ids),
            ("logits_index", self.logits_index),
            ("attention_mask", self.mask),
        ):
            self._bind_input(name, array, array.shape)
        self._bind_output("logits", logits)
        past_shape = (num_rows, shape.n_heads, slots, shape.head_dim)
        present_shape = (num_rows, shape.n_heads, num_tokens, shape.head_dim)
        self._stored: list[tuple[NDArray[Any], NDArray[Any]]] = []  # (present, the same rows of the cache)
        for layer in range(shape.n_layer):
            for side in ("key", "value"):
                buffer = cache.buffer(layer, side)
                assert buffer is not None
                past = buffer[first_row : first_row + num_rows]
                present = np.empty(present_shape, runner.kv_dtype)
                self._bind_input(f"past_key_values.{layer}.{side}", past, past_shape)
                self._bind_output(f"present.{layer}.{side}", present)
                self._stored.append((present, past))

    def _bind_input(self, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype, shape, array.ctypes.data)

    def _bind_output(self, name: str, array: NDArray[Any]) -> None:
        self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays but the logits."""
        inputs = (
            self.input_ids.nbytes + self.position_ids.nbytes + self.logits_index.nbytes + self.mask.nbytes
        )
        return inputs + sum(present.nbytes for present, _ in self._stored)

    def fits(self, num_rows: int) -> bool:
        """Whether these arrays and addresses are still right for so many rows."""
        return num_rows == self._num_rows and self._layout_version == self._cache.layout_version

    def run(self, options: Any) -> None:
        """Run the graph."""
        self._run(self._binding, options)

    def store(self, ends: Sequence[int]) -> None:
        """Copy the new keys and values into the slots before each row's end."""
        same = min(ends) == max(ends)
        for present, rows in self._stored:
            if same:
                rows[:, :, ends[0] - self._num_tokens : ends[0]] = present
                continue
            for row, end in enumerate(ends):
                rows[row, :, end - self._num_tokens : end] = present[row]
