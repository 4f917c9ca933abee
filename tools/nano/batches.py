"""Makes batches of sequences of like length, and the tensors of a batch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from tools.nano.examples import Example

__all__ = ["TOKENS_AT_ONCE", "group_by_length", "to_tensors"]

TOKENS_AT_ONCE = 8192
"""Of a batch that is only measured: bounds the logits at 8192 * 2048 * 4 bytes = 64 MiB."""

IGNORED_TARGET = -100
"""Target of a position that does not count in the loss; the value that GPTJXForCausalLM.forward() skips."""


def group_by_length(
    examples: Iterable[Example], *, max_tokens: int, rng: random.Random | None = None
) -> Iterator[list[Example]]:
    """Batches of sequences of like length: at most max_tokens tokens with padding, or one sequence.

    Args:
        rng: mixes neighbours in length, which makes other batches each time, and shuffles the batches. None:
            strictly by length, short ones first.
    """
    spread = 0.1  # neighbours are up to a tenth apart in length: that much padding for variety
    by_length = sorted(examples, key=lambda e: len(e.ids) * (1 + spread * rng.random() if rng else 1))
    batches: list[list[Example]] = []
    width = 0
    for example in by_length:
        width = max(width, len(example.ids))
        if not batches or (len(batches[-1]) + 1) * width > max_tokens:
            batches.append([])
            width = len(example.ids)
        batches[-1].append(example)
    if rng is not None:
        rng.shuffle(batches)
    yield from batches


def to_tensors(batch: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """input_ids and targets, both int64 [len(batch), longest sequence - 1].

    Shorter rows are padded on the right with id 0, which no earlier token sees and which does not count.
    """
    width = max(len(example.ids) for example in batch) - 1
    input_ids = torch.zeros(len(batch), width, dtype=torch.int64)
    targets = torch.full((len(batch), width), IGNORED_TARGET, dtype=torch.int64)
    for row, example in enumerate(batch):
        ids, start = torch.tensor(example.ids), example.learnt_from or example.answer_start
        input_ids[row, : len(ids) - 1] = ids[:-1]
        targets[row, start - 1 : len(ids) - 1] = ids[start:]
    return input_ids, targets
