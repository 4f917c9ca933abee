"""document_mask, prefix_mask, sliding_window_mask against explicit loops, and through the torch model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sabiyarn_edge import document_mask, prefix_mask, sliding_window_mask
from sabiyarn_edge.calls.attention_masks import read_attn_mask
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint

SEPARATOR = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GPTJXForCausalLM:
    folder: Path = make_tiny_checkpoint(tmp_path_factory.mktemp("patterns") / "checkpoint")
    return GPTJXForCausalLM.from_pretrained(folder)


def logits(model: GPTJXForCausalLM, ids: list[int], mask: np.ndarray, first: int = 0) -> np.ndarray:
    positions = torch.arange(first, first + len(ids))
    with torch.no_grad():
        output = model(torch.tensor([ids]), attn_mask=torch.from_numpy(mask), position_ids=positions)
    return output.logits[0].numpy()


def in_loops(total: int, sees: Callable[[int, int], bool]) -> np.ndarray:
    mask = np.zeros((total, total), bool)
    for query in range(total):
        for key in range(total):
            mask[query, key] = sees(query, key)
    return mask


@pytest.mark.parametrize(
    "ids",
    [[1, 2, 5, 3, 4, 5, 6], [5, 5, 1], [1, 2, 3], [5]],
    ids=["documents", "empty-ones", "no-separator", "only-a-separator"],
)
def test_documents_do_not_see_each_other(ids: list[int]) -> None:
    expected = in_loops(
        len(ids), lambda query, key: key <= query and SEPARATOR not in ids[key:query]
    )  # a separator belongs to the document that it ends
    np.testing.assert_array_equal(document_mask(ids, SEPARATOR), expected)


def test_documents_of_a_batch() -> None:
    ids = np.random.default_rng(0).integers(0, 7, (3, 20))
    expected = [document_mask(row, SEPARATOR) for row in ids]
    np.testing.assert_array_equal(document_mask(ids, SEPARATOR), expected)


def test_a_packed_document_computes_as_alone(model: GPTJXForCausalLM) -> None:
    documents = [[9, 8, 7, SEPARATOR], [3, 1, SEPARATOR], [60, 61, 62]]
    packed = [token for document in documents for token in document]
    together = logits(model, packed, document_mask(packed, SEPARATOR))
    first = 0
    for document in documents:
        alone = logits(model, document, np.tri(len(document), dtype=bool), first)
        np.testing.assert_allclose(together[first : first + len(document)], alone, atol=1e-4)
        first += len(document)


@pytest.mark.parametrize(("length", "total"), [(0, 4), (1, 4), (3, 4), (4, 4), (4, None)])
def test_the_prefix_sees_itself_whole(length: int, total: int | None) -> None:
    size = total or length
    expected = in_loops(size, lambda query, key: key <= query or (query < length and key < length))
    np.testing.assert_array_equal(prefix_mask(length, total), expected)


def test_only_the_prefix_looks_ahead(model: GPTJXForCausalLM) -> None:
    ids, changed = [1, 2, 3, 4, 5, 6], [1, 2, 3, 40, 5, 60]
    before, after = (logits(model, row, prefix_mask(4, 6)) for row in (ids, changed))
    causal = [logits(model, row, prefix_mask(0, 6)) for row in (ids, changed)]
    assert np.abs(before[0] - after[0]).max() > 1e-2  # the first token saw the fourth change
    np.testing.assert_array_equal(causal[0][:3], causal[1][:3])


@pytest.mark.parametrize(
    ("window", "total", "sinks"), [(1, 5, 0), (2, 5, 0), (3, 7, 2), (9, 5, 0), (2, 6, 1)]
)
def test_the_window_slides(window: int, total: int, sinks: int) -> None:
    expected = in_loops(total, lambda query, key: key <= query and (query - key < window or key < sinks))
    np.testing.assert_array_equal(sliding_window_mask(window, total, num_sink_tokens=sinks), expected)


def test_a_window_without_total_suits_prompts_of_any_length() -> None:
    mask = sliding_window_mask(3, num_sink_tokens=1)
    short, long = read_attn_mask(mask, [5, 9])
    for found, total in ((short, 5), (long, 9)):
        np.testing.assert_array_equal(found.values, sliding_window_mask(3, total, num_sink_tokens=1))


def test_what_left_the_window_has_no_influence(model: GPTJXForCausalLM) -> None:
    """One layer sees `window` tokens, two see 2 * window - 1: the tiny model has two."""
    mask = sliding_window_mask(3, 9)
    a, b = (logits(model, row, mask) for row in ([1, 2, 3, 4, 5, 6, 7, 8, 9], [90, 2, 3, 4, 5, 6, 7, 8, 9]))
    np.testing.assert_array_equal(a[5:], b[5:])
    assert np.abs(a[4] - b[4]).max() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: document_mask([], 1), r"ids has shape \(0,\)"),
        (lambda: document_mask([0.5], 1), "dtype float64"),
        (lambda: document_mask(3, 1), r"ids has shape \(\)"),
        (lambda: prefix_mask(5, 4), "length is 5, but must be an integer from 0 to 4"),
        (lambda: prefix_mask(-1, 4), "length is -1"),
        (lambda: prefix_mask(0), "total is 0, but must be an integer from 1"),
        (lambda: sliding_window_mask(0, 4), "window is 0"),
        (lambda: sliding_window_mask(2, 0), "total is 0"),
        (lambda: sliding_window_mask(2, 4, num_sink_tokens=-1), "num_sink_tokens is -1"),
    ],
)
def test_impossible_patterns(make: Callable[[], np.ndarray], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()
