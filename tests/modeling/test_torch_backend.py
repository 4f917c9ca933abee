"""Rows that fork, vanish and change places, each with its own length, against the oracle run on each row alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sabiyarn_edge.modeling.torch_backend import TorchBackend, continue_mask
from tests.modeling.tiny import FLOAT32_BOUND, tiny_model, tiny_oracle

INF = float("inf")


def run_against_oracle(backend, prompts, masks, seed):
    """Drive the backend through random steps; compare all logits of all steps."""
    oracle, rng = tiny_oracle(), np.random.default_rng(seed)
    rows = [(list(prompt), index) for index, prompt in enumerate(prompts)]  # ids, index of the prompt
    backend.prefill()
    for _ in range(8):
        for row, (ids, prompt) in enumerate(rows):
            mask = None if masks is None else continue_mask_by_hand(masks[prompt], len(ids))
            expected = oracle.logits(ids, mask=mask)[-1]
            np.testing.assert_allclose(backend.logits[row], expected, atol=FLOAT32_BOUND, rtol=0)
        sources = rng.integers(0, len(rows), rng.integers(1, 6))
        tokens = rng.integers(0, 97, len(sources))
        rows = [([*rows[s][0], int(t)], rows[s][1]) for s, t in zip(sources, tokens, strict=True)]
        backend.compute(SimpleNamespace(row_sources=sources.astype(np.int32), next_tokens=tokens))


def continue_mask_by_hand(mask, length):
    """Element by element: what the prompt says; new tokens see what its last token sees, and new ones before."""
    count = len(mask)
    extended = np.full((length, length), -INF)
    for query in range(length):
        for key in range(length):
            if key < count:
                extended[query, key] = mask[min(query, count - 1), key]
            elif key <= query:
                extended[query, key] = 0.0
    return extended


def prompts_of(lengths):
    rng = np.random.default_rng(len(lengths))
    return [rng.integers(0, 97, length).tolist() for length in lengths]


@pytest.mark.parametrize("lengths", [(5,), (4, 4, 4), (1, 9, 3)], ids=str)
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "causal"])
@pytest.mark.parametrize("seed", range(3))
def test_rows_equal_the_oracle(lengths, cached, masked, seed):
    model, prompts = tiny_model(), prompts_of(lengths)
    masks = None
    if masked:
        rng = np.random.default_rng(seed)
        masks = [np.where(rng.random((n, n)) < 0.6, rng.normal(size=(n, n)), -INF) for n in lengths]
        for mask in masks:
            np.fill_diagonal(mask, 0.0)
    backend = TorchBackend(
        model,
        prompts,
        masks=None if masks is None else [torch.from_numpy(mask).float() for mask in masks],
        cache=model.kv_cache if cached else None,
        max_rows=5,
    )
    run_against_oracle(backend, prompts, masks, seed)


def test_the_logits_stay_where_they_are():
    model, prompts = tiny_model(), prompts_of((3, 2))
    backend = TorchBackend(model, prompts, masks=None, cache=model.kv_cache, max_rows=5)
    address = backend.logits_address
    backend.prefill()
    backend.compute(SimpleNamespace(row_sources=np.array([0, 0, 1, 1, 1]), next_tokens=np.arange(5)))
    assert backend.logits_address == address == backend.logits.ctypes.data
    assert backend.logits.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(("length", "size"), [(3, 3), (3, 5), (6, 6), (5, 8)])
def test_continue_mask(length, size):
    mask = np.array([[0, -INF, -INF], [0.5, 0, 1], [-INF, 2, 0]])
    extended = continue_mask(torch.from_numpy(mask), length, size).numpy()
    np.testing.assert_array_equal(extended[:length, :length], continue_mask_by_hand(mask, length))
    assert (extended[:length, length:] == -INF).all()
    filling = extended[length:]
    np.testing.assert_array_equal(filling, np.where(np.eye(size) == 1, 0.0, -INF)[length:])
