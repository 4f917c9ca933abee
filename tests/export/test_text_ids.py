"""Text that a model writes for its own calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sabiyarn_edge.export.text_ids import cut_to_rows, evenly_spaced, written_by
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GPTJXForCausalLM:
    folder: Path = make_tiny_checkpoint(tmp_path_factory.mktemp("text-ids") / "checkpoint", vocab_size=11)
    return GPTJXForCausalLM.from_pretrained(folder, use_kv_cache=True, max_batch_size=600)


def test_it_is_drawn_from_the_models_distribution(model: GPTJXForCausalLM) -> None:
    """The third tokens of many rows, against the mean of what the uncached model says they should be."""
    steps: list[int] = []
    ids = written_by(model, rows=600, length=3, seed=0, progress=steps.append)
    assert ids.shape == (600, 3)
    assert sum(steps) == 600 * 3
    with torch.inference_mode():
        expected = model(ids[:, :2]).logits[:, -1].softmax(dim=-1).mean(dim=0).numpy()
    found = np.bincount(ids[:, 2].numpy(), minlength=11) / 600
    # The deviation of a share of 600 draws is at most 0.0204: five of them.
    np.testing.assert_allclose(found, expected, atol=0.102)
    assert np.abs(np.full(11, 1 / 11) - expected).max() > 0.102  # a uniform choice would be seen


def test_the_seed_decides(model: GPTJXForCausalLM) -> None:
    first, same, other = (written_by(model, rows=4, length=20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert model.kv_cache.nbytes == 0


def test_pieces() -> None:
    assert [piece.tolist() for piece in cut_to_rows(torch.arange(5), 2)] == [[[0, 1]], [[2, 3]]]
    assert [piece.tolist() for piece in cut_to_rows(torch.arange(5), 3)] == [[[0, 1, 2]], [[3, 4]]]
    assert [piece.tolist() for piece in cut_to_rows(torch.arange(2), 9)] == [[[0, 1]]]


def test_texts_from_all_over() -> None:
    texts = [torch.full((1, 10), i) for i in range(100)]
    assert [int(text[0, 0]) for text in evenly_spaced(texts, 49)] == [0, 25, 50, 75]
    assert evenly_spaced(texts, 1000) == texts
    assert [int(text[0, 0]) for text in evenly_spaced(texts, 3)] == [0]
