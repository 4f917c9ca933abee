from __future__ import annotations

import random

import pytest
import torch

from tools.nano.batches import group_by_length, to_tensors
from tools.nano.examples import Example


def made_up(*lengths):
    return [Example(tuple(range(1, length + 1)), answer_start=1) for length in lengths]


@pytest.mark.parametrize("rng", [None, random.Random(0)], ids=["strict", "shuffled"])
def test_batches_hold_everything_once_within_the_limit(rng):
    sizes = random.Random(1)
    lengths = [sizes.randint(2, 90) for _ in range(200)] + [300]
    batches = list(group_by_length(made_up(*lengths), max_tokens=256, rng=rng))
    assert sorted(len(e.ids) for batch in batches for e in batch) == sorted(lengths)
    for batch in batches:
        width = max(len(e.ids) for e in batch)
        assert len(batch) * width <= 256 or len(batch) == 1
    padded = sum(len(batch) * max(len(e.ids) for e in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)


def test_without_a_generator_short_ones_come_first():
    batches = list(group_by_length(made_up(9, 3, 5, 4), max_tokens=10))
    assert [[len(e.ids) for e in batch] for batch in batches] == [[3, 4], [5], [9]]


def test_tensors_have_shifted_targets_for_the_answer_only():
    batch = [Example((5, 6, 7, 8), answer_start=2), Example((9, 4), answer_start=1)]
    input_ids, targets = to_tensors(batch)
    assert torch.equal(input_ids, torch.tensor([[5, 6, 7], [9, 0, 0]]))
    assert torch.equal(targets, torch.tensor([[-100, 7, 8], [4, -100, -100]]))


def test_a_prompt_counts_as_far_as_it_is_learnt():
    batch = [Example((5, 6, 7, 8), answer_start=3, learnt_from=first) for first in (0, 1, 2, 3)]
    _, targets = to_tensors(batch)
    expected = [[-100, -100, 8], [6, 7, 8], [-100, 7, 8], [-100, -100, 8]]
    assert torch.equal(targets, torch.tensor(expected))
