"""TorchBackend: the torch model as the decode loop sees it, row by row of unequal length, without padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core import DecodeState
from ..calls.attention_masks import PromptMask
from ..options.overflow import SlidingContext
from .blocks import Attend
from .kv_cache import KvCache
from .network import GPTJXNetwork

__all__ = ["TorchBackend"]


class TorchBackend:
    """Computes the logits of a DecodeState's rows.

    Rows stand in one batch, shorter ones filled up on the right: causality hides what comes after a row's end,
    and later tokens overwrite it. When a row slides, what all rows see is computed anew.

    Args:
        model: in evaluation mode.
        context: what a row sees of its text.
        masks: one for each prompt, replacing causality; None: all are causal.
        cache: where keys and values are kept, taken over and begun anew; None: every step computes all again.
        max_rows: the most rows of any step.
    """

    def __init__(
        self,
        model: GPTJXNetwork,
        context: SlidingContext,
        *,
        masks: Sequence[PromptMask] | None,
        cache: KvCache | None,
        max_rows: int,
    ) -> None:
        self._model = model
        self._context = context
        self._masks = masks
        self._cache = cache
        self._later: dict[int, NDArray[np.float32] | None] = {}
        """For each prompt: what a new token sees of the tokens of the last whole run, additive; None: all."""
        self._device = model.transformer.wte.weight.device
        self.logits: NDArray[np.float32] = np.zeros((max_rows, model.config.vocab_size), np.float32)
        """[max_rows, vocab_size]; the first rows are those of the latest step."""

    @property
    def logits_address(self) -> int:
        """Where logits stand; the same for the whole run."""
        return self.logits.ctypes.data

    @torch.no_grad()
    def prefill(self, state: DecodeState) -> None:
        """Compute the prompts; logits are those of their last tokens."""
        self._run_texts(state)

    @torch.no_grad()
    def compute(self, state: DecodeState) -> None:
        """Compute the tokens that `state` chose; rows follow its row_sources."""
        if self._cache is None or any(map(self._context.slides_at, (state.next_positions + 1).tolist())):
            self._run_texts(state)
        else:
            self._cache.reorder(state.row_sources.tolist())
            self._run_newest(state, self._cache)

    def _run_texts(self, state: DecodeState) -> None:
        """Run all that each row sees of its text, from position 0."""
        texts = [state.history_of(row) for row in range(state.num_rows)]
        seen = [self._context.of(text) for text in texts]
        lengths = [len(tokens) for tokens in seen]
        longest = max(lengths)
        ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in seen], device=self._device)
        attend = Attend(mask=self._text_mask(state, texts, longest), cache=self._cache)
        if self._cache is not None:
            self._cache.start(len(seen), self._device)
            self._cache.reserve(longest, self._device)
        positions = torch.arange(longest, device=self._device)[None]
        hidden = self._model.transformer(ids, positions, attend)  # [rows, longest, n_embd]
        if self._cache is not None:
            self._cache.advance(lengths)
        last = torch.tensor(lengths, device=self._device) - 1
        self._store(hidden[torch.arange(len(lengths), device=self._device), last])

    def _run_newest(self, state: DecodeState, cache: KvCache) -> None:
        """Run the newest token of each row."""
        cache.reserve(1, self._device)
        ids = torch.from_numpy(state.next_tokens).to(self._device)[:, None]
        lengths = torch.tensor(cache.lengths, device=self._device)
        attend = Attend(mask=self._newest_mask(state, cache.lengths), causal=False, cache=cache)
        hidden = self._model.transformer(ids, lengths[:, None], attend)  # [rows, 1, n_embd]
        cache.advance([1] * len(ids))
        self._store(hidden[:, 0])

    def _text_mask(self, state: DecodeState, texts: Sequence[Sequence[int]], size: int) -> Tensor | None:
        """What the tokens that rows see of their texts see of one another, additive [rows, 1, size, size]."""
        if self._masks is None:
            return None
        mask = np.full((len(texts), size, size), -np.inf, np.float32)
        for row, text in enumerate(texts):
            prompt = state.prompt_of(row)
            seen = self._masks[prompt].of_kept(self._context.of(range(len(text))))
            self._later[prompt] = seen.later
            values = np.tri(seen.length, dtype=bool) if seen.values is None else seen.values
            own = mask[row, : seen.length, : seen.length]
            own[...] = np.where(values, 0, -np.inf) if values.dtype == np.bool_ else values
            filling = np.arange(seen.length, size)
            mask[row, filling, filling] = 0  # it sees itself, so that its unused output stays finite
        return self._as_tensor(mask[:, None])

    def _newest_mask(self, state: DecodeState, lengths: Sequence[int]) -> Tensor | None:
        """What one new token of each row sees, additive [rows, 1, 1, longest + 1]; None: everything."""
        if self._masks is None and min(lengths) == max(lengths):
            return None
        mask = np.full((len(lengths), max(lengths) + 1), -np.inf, np.float32)
        for row, length in enumerate(lengths):
            mask[row, : length + 1] = 0
            later = self._later.get(state.prompt_of(row))
            if later is not None:
                mask[row, : len(later)] = later
        return self._as_tensor(mask[:, None, None])

    def _as_tensor(self, mask: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(mask).to(self._device, self._model.transformer.wte.weight.dtype)

    def _store(self, hidden: Tensor) -> None:
        """Logits of hidden states [rows, n_embd]."""
        self.logits[: len(hidden)] = self._model.lm_head(hidden).float().cpu().numpy()
