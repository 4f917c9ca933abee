"""A toy language model: its logits are a row of a table, chosen by the length and the last two tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sabiyarn_edge import _core


class TableModel:
    """Logits [97, vocab_size] float32; which row is a hash of the length and the last two ids."""

    def __init__(self, seed: int, vocab_size: int, *, levels: int | None = None, scale: float = 2.0):
        rng = np.random.default_rng(seed)
        table = rng.normal(0.0, scale, (97, vocab_size))
        if levels is not None:  # few distinct values, so that ties are common
            table = np.round(rng.integers(0, levels, table.shape) * scale / levels * 8) / 8
        self.table = table.astype(np.float32)
        self.vocab_size = vocab_size

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        before = ids[-2] if len(ids) > 1 else 0
        return self.table[(int(ids[-1]) * 31 + int(before) * 7 + len(ids) * 13) % len(self.table)]


def decode(
    model: TableModel,
    prompts: Sequence[Sequence[int]],
    options: _core.DecodeOptions,
    allowed: Callable[[int, list[int]], list[int]] | None = None,
) -> _core.DecodeState:
    """Runs a DecodeState to its end, following rows as a key-value cache does: by source and newest id.

    allowed: prefix_allowed_tokens_fn (prompt index, ids so far) -> ids that may follow.
    """
    state = _core.DecodeState(options, model.vocab_size, prompts)
    rows = [list(prompt) for prompt in prompts]
    while not state.finished:
        assert [state.history_of(row) for row in range(state.num_rows)] == rows
        if allowed is not None:
            for row, ids in enumerate(rows):
                state.set_allowed_tokens(row, allowed(state.prompt_of(row), ids))
        state.advance(np.stack([model.logits(row) for row in rows]))
        rows = [
            [*rows[source], int(token)]
            for source, token in zip(state.row_sources, state.next_tokens, strict=True)
        ]
        assert [len(row) - 1 for row in rows] == state.next_positions.tolist()
    return state
