"""Rows that fork, vanish, change places and slide, of unequal length, against the oracle run on each row alone."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge.calls.attention_masks import PromptMask
from sabiyarn_edge.modeling.torch_backend import TorchBackend
from sabiyarn_edge.options.overflow import SlidingContext
from tests.modeling.tiny import FLOAT32_BOUND, tiny_model, tiny_oracle
from tests.sliding_oracle import feed

INF = float("inf")


class Rows:
    """What a DecodeState says of its rows, with sources and tokens of the test's choice."""

    def __init__(self, prompts):
        self.texts, self.prompts = [list(prompt) for prompt in prompts], list(range(len(prompts)))

    def choose(self, sources, tokens):
        self.row_sources, self.next_tokens = np.asarray(sources, np.int32), np.asarray(tokens, np.int64)
        self.texts = [[*self.texts[s], int(t)] for s, t in zip(sources, tokens, strict=True)]
        self.prompts = [self.prompts[source] for source in sources]

    num_rows = property(lambda self: len(self.texts))
    next_positions = property(lambda self: np.array([len(text) - 1 for text in self.texts]))

    def history_of(self, row):
        return list(self.texts[row])

    def prompt_of(self, row):
        return self.prompts[row]


def mask_by_hand(mask, length, kept):
    """Element by element: what the prompt says; new tokens see what its last token sees, and new ones before; of all
    that, what is kept. Who sees nothing any more sees itself."""
    count = len(mask)
    extended = np.full((length, length), -INF)
    for query in range(length):
        for key in range(length):
            if key < count:
                extended[query, key] = mask[min(query, count - 1), key]
            elif key <= query:
                extended[query, key] = 0.0
    seen = extended[kept][:, kept]
    for query, row in enumerate(seen):
        if (row == -INF).all():
            row[query] = 0.0
    return seen


def run_against_oracle(backend, rows, masks, seed, positions, keep):
    """Drive the backend through random steps; compare all logits of all steps."""
    oracle, rng = tiny_oracle(), np.random.default_rng(seed)
    backend.prefill(rows)
    for _ in range(14):
        for row, text in enumerate(rows.texts):
            kept, _ = feed(range(len(text)), positions, keep)
            mask = None if masks is None else mask_by_hand(masks[rows.prompts[row]], len(text), kept)
            expected = oracle.logits([text[at] for at in kept], mask=mask)[-1]
            np.testing.assert_allclose(backend.logits[row], expected, atol=FLOAT32_BOUND, rtol=0)
        sources = rng.integers(0, rows.num_rows, rng.integers(1, 6))
        rows.choose(sources, rng.integers(0, 97, len(sources)))
        backend.compute(rows)


def prompts_of(lengths):
    rng = np.random.default_rng(len(lengths))
    return [rng.integers(0, 97, length).tolist() for length in lengths]


def random_masks(lengths, seed):
    rng = np.random.default_rng(seed)
    masks = [np.where(rng.random((n, n)) < 0.6, rng.normal(size=(n, n)), -INF) for n in lengths]
    for mask in masks:
        np.fill_diagonal(mask, 0.0)
    return [mask.astype(np.float32) for mask in masks]


@pytest.mark.parametrize("lengths", [(5,), (4, 4, 4), (1, 9, 3), (30, 2)], ids=str)
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "causal"])
@pytest.mark.parametrize(("positions", "keep"), [(64, 0), (10, 0), (10, 3)], ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_rows_equal_the_oracle(lengths, cached, masked, positions, keep, seed):
    model, prompts = tiny_model(), prompts_of(lengths)
    masks = random_masks(lengths, seed) if masked else None
    backend = TorchBackend(
        model,
        SlidingContext(positions, positions, keep),
        masks=None if masks is None else [PromptMask(len(mask), mask) for mask in masks],
        cache=model.kv_cache if cached else None,
        max_rows=5,
    )
    run_against_oracle(backend, Rows(prompts), masks, seed, positions, keep)


def test_a_causal_prompt_beside_a_masked_one():
    model, prompts = tiny_model(), prompts_of((6, 4))
    masks = [random_masks((6,), 0)[0], np.where(np.tri(4) == 1, 0.0, -INF)]
    backend = TorchBackend(
        model,
        SlidingContext(64, 64),
        masks=[PromptMask(6, masks[0]), PromptMask(4, None)],
        cache=model.kv_cache,
        max_rows=5,
    )
    run_against_oracle(backend, Rows(prompts), masks, 0, 64, 0)


def test_the_logits_stay_where_they_are():
    model, rows = tiny_model(), Rows(prompts_of((3, 2)))
    backend = TorchBackend(model, SlidingContext(64, 64), masks=None, cache=model.kv_cache, max_rows=5)
    address = backend.logits_address
    backend.prefill(rows)
    rows.choose([0, 0, 1, 1, 1], range(5))
    backend.compute(rows)
    assert backend.logits_address == address == backend.logits.ctypes.data
    assert backend.logits.flags["C_CONTIGUOUS"]
