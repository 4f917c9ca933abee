"""TorchBackend: the torch model as the decode loop sees it, row by row of unequal length, without padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .blocks import Attend
from .kv_cache import KvCache

if TYPE_CHECKING:
    from .._core import DecodeState
    from .model import GPTJXForCausalLM

__all__ = ["TorchBackend", "continue_mask"]

HIDDEN = float("-inf")


class TorchBackend:
    """Computes the logits of a DecodeState's rows.

    Rows stand in one batch, shorter ones filled up on the right: causality hides what comes after a row's end,
    and later tokens overwrite it.

    Args:
        model: in evaluation mode.
        prompts: token ids of each prompt.
        masks: additive [p, p] for each prompt of p tokens, replacing causality; None: causal.
        cache: where keys and values are kept, taken over and begun anew; None: every step computes all again.
        max_rows: the most rows of any step.
    """

    def __init__(
        self,
        model: GPTJXForCausalLM,
        prompts: list[list[int]],
        *,
        masks: list[Tensor] | None,
        cache: KvCache | None,
        max_rows: int,
    ) -> None:
        self._model = model
        self._cache = cache
        self._device = model.transformer.wte.weight.device
        self._rows = [list(prompt) for prompt in prompts]  # the ids of each row so far
        self._masks = masks  # of each row's prompt
        self.logits: NDArray[np.float32] = np.zeros((max_rows, model.config.vocab_size), np.float32)
        """[max_rows, vocab_size]; the first rows are those of the latest step."""

    @property
    def logits_address(self) -> int:
        """Where logits stand; the same for the whole run."""
        return self.logits.ctypes.data

    @torch.no_grad()
    def prefill(self) -> None:
        """Compute the prompts; logits are those of their last tokens."""
        if self._cache is not None:
            self._cache.start(len(self._rows), self._device)
        self._compute_whole_rows()

    @torch.no_grad()
    def compute(self, state: DecodeState) -> None:
        """Compute the tokens that `state` chose; rows follow its row_sources."""
        sources: list[int] = state.row_sources.tolist()
        tokens: list[int] = state.next_tokens.tolist()
        self._rows = [[*self._rows[source], token] for source, token in zip(sources, tokens, strict=True)]
        if self._masks is not None:
            self._masks = [self._masks[source] for source in sources]
        if self._cache is None:
            self._compute_whole_rows()
        else:
            self._cache.reorder(sources)
            self._compute_last_tokens(self._cache)

    def _compute_whole_rows(self) -> None:
        lengths = [len(row) for row in self._rows]
        longest = max(lengths)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in self._rows], device=self._device)
        mask = None
        if self._masks is not None:
            mask = torch.stack(
                [
                    continue_mask(own, length, longest)
                    for own, length in zip(self._masks, lengths, strict=True)
                ]
            )[:, None]
        attend = Attend(mask=mask, cache=self._cache)
        if self._cache is not None:
            self._cache.reserve(longest, self._device)
        positions = torch.arange(longest, device=self._device)[None]
        hidden = self._model.transformer(ids, positions, attend)  # [rows, longest, n_embd]
        if self._cache is not None:
            self._cache.advance(lengths)
        last = torch.tensor(lengths, device=self._device) - 1
        self._store(hidden[torch.arange(len(lengths), device=self._device), last])

    def _compute_last_tokens(self, cache: KvCache) -> None:
        cache.reserve(1, self._device)
        ids = torch.tensor([row[-1:] for row in self._rows], device=self._device)
        lengths = torch.tensor(cache.lengths, device=self._device)
        attend = Attend(mask=self._step_mask(cache.lengths), causal=False, cache=cache)
        hidden = self._model.transformer(ids, lengths[:, None], attend)  # [rows, 1, n_embd]
        cache.advance([1] * len(self._rows))
        self._store(hidden[:, 0])

    def _step_mask(self, lengths: list[int]) -> Tensor | None:
        """What one new token of each row sees, additive [rows, 1, 1, longest + 1]; None: everything."""
        if self._masks is None and min(lengths) == max(lengths):
            return None
        dtype = self._model.transformer.wte.weight.dtype
        mask = torch.full((len(lengths), max(lengths) + 1), HIDDEN, dtype=dtype, device=self._device)
        for row, length in enumerate(lengths):
            mask[row, : length + 1] = 0.0
            if self._masks is not None:
                prompt = self._masks[row]
                mask[row, : len(prompt)] = prompt[-1]
        return mask[:, None, None]

    def _store(self, hidden: Tensor) -> None:
        """Logits of hidden states [rows, n_embd]."""
        self.logits[: len(hidden)] = self._model.lm_head(hidden).float().cpu().numpy()


def continue_mask(mask: Tensor, length: int, size: int) -> Tensor:
    """Extend a prompt's mask by generated tokens and by filling up.

    Generated tokens see what the prompt's last token saw, and the generated ones up to themselves.

    Args:
        mask: additive [p, p].
        length: tokens now, p or more.
        size: of the result; positions beyond `length` see themselves only, and nobody sees them.

    Returns:
        additive [size, size].
    """
    prompt = len(mask)
    extended = torch.full((size, size), HIDDEN, dtype=mask.dtype, device=mask.device)
    extended[:prompt, :prompt] = mask
    extended[prompt:length, :prompt] = mask[-1]
    new = length - prompt
    extended[prompt:length, prompt:length] = torch.full_like(extended[:new, :new], HIDDEN).triu(1)
    extended.diagonal()[length:] = 0.0
    return extended
