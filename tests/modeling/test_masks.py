"""attn_mask and attention_mask, cached and not, against the oracle."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sabiyarn_edge.errors import InvalidInputError
from tests.modeling.tiny import FLOAT32_BOUND, logits_of, random_ids, tiny_model, tiny_oracle

COUNT = 12


def prefix_lm(count=COUNT, prefix=5):
    """Causal, but the prefix sees all of itself."""
    mask = np.tri(count, dtype=bool)
    mask[:prefix, :prefix] = True
    return mask


def packed(count=COUNT, border=7):
    """Two documents that do not see each other."""
    mask = np.tri(count, dtype=bool)
    mask[border:, :border] = False
    return mask


MASKS = {"prefix-lm": prefix_lm(), "packed": packed(), "all": np.ones((COUNT, COUNT), dtype=bool)}


def additive(mask):
    return np.where(mask, 0.0, -np.inf)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("form", ["bool", "int64", "uint8", "float32", "float64", "lowest"])
def test_attn_mask_replaces_causality(mask, form):
    model, oracle = tiny_model(), tiny_oracle()
    ids = random_ids(model, 2, COUNT)
    forms = {
        "bool": torch.from_numpy(mask),
        "int64": torch.from_numpy(mask.astype(np.int64)),
        "uint8": torch.from_numpy(mask.astype(np.uint8)),
        "float32": torch.from_numpy(additive(mask).astype(np.float32)),
        "float64": torch.from_numpy(additive(mask)),
        "lowest": torch.from_numpy(np.where(mask, 0, np.finfo(np.float32).min).astype(np.float32)),
    }
    logits = logits_of(model, ids, attn_mask=forms[form])
    for row in range(2):
        expected = oracle.logits(ids[row], mask=additive(mask))
        np.testing.assert_allclose(logits[row], expected, atol=FLOAT32_BOUND, rtol=0)


def test_additive_masks_may_be_biases():
    model, oracle = tiny_model(), tiny_oracle()
    ids = random_ids(model, 1, COUNT)
    distance = np.arange(COUNT)[:, None] - np.arange(COUNT)[None]
    bias = np.where(distance >= 0, -0.5 * distance, -np.inf)  # ALiBi (arXiv:2108.12409)
    logits = logits_of(model, ids, attn_mask=torch.from_numpy(bias))
    np.testing.assert_allclose(logits[0], oracle.logits(ids[0], mask=bias), atol=FLOAT32_BOUND, rtol=0)


@pytest.mark.parametrize("dims", [2, 3, 4])
@pytest.mark.parametrize("batch", [1, 2])
def test_attn_mask_shapes(dims, batch):
    model, oracle = tiny_model(), tiny_oracle()
    ids = random_ids(model, 2, COUNT)
    masks = np.stack([prefix_lm(), packed()])[:batch]
    given = torch.from_numpy(masks[0] if dims == 2 else masks[:, None] if dims == 4 else masks)
    logits = logits_of(model, ids, attn_mask=given)
    for row in range(2):
        own = masks[0] if dims == 2 else masks[min(row, batch - 1)]
        np.testing.assert_allclose(
            logits[row], oracle.logits(ids[row], mask=additive(own)), atol=FLOAT32_BOUND, rtol=0
        )


@pytest.mark.parametrize("sizes", [(12,), (7, 5), (7, 1, 1, 3), (5, 2, 5)], ids=str)
@pytest.mark.parametrize("mask", [prefix_lm(), packed()], ids=["prefix-lm", "packed"])
def test_attn_mask_in_chunks(sizes, mask):
    model, oracle = tiny_model(max_batch_size=2), tiny_oracle()
    ids = random_ids(model, 2, COUNT)
    parts, past = [], 0
    for count in sizes:
        rows = torch.from_numpy(mask[past : past + count, : past + count])
        parts.append(logits_of(model, ids[:, past : past + count], use_cache=True, attn_mask=rows))
        past += count
    logits = np.concatenate(parts, axis=1)
    for row in range(2):
        expected = oracle.logits(ids[row], mask=additive(mask))
        np.testing.assert_allclose(logits[row], expected, atol=FLOAT32_BOUND, rtol=0)


# --- key padding --------------------------------------------------------------------------------------------

PADDING = {
    "left": [[0] * 5 + [1] * 7, [1] * 12],
    "right": [[1] * 7 + [0] * 5, [1] * 12],
    "middle": [[1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 1, 1], [0, 1, 0, 1] * 3],
    "none": [[1] * 12, [1] * 12],
}


@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)
@pytest.mark.parametrize("sizes", [None, (12,), (1,) * 12, (4, 1, 7)], ids=str)
def test_padding_never_changes_the_other_tokens(padding, sizes):
    model, oracle = tiny_model(max_batch_size=2), tiny_oracle()
    ids, mask = random_ids(model, 2, COUNT), torch.tensor(padding)
    if sizes is None:
        logits = logits_of(model, ids, attention_mask=mask)
    else:
        parts, past = [], 0
        for count in sizes:
            seen = mask[:, : past + count]
            parts.append(logits_of(model, ids[:, past : past + count], use_cache=True, attention_mask=seen))
            past += count
        logits = np.concatenate(parts, axis=1)
    assert np.isfinite(logits).all()
    for row in range(2):
        real = mask[row].bool()
        np.testing.assert_allclose(
            logits[row][real.numpy()], oracle.logits(ids[row][real]), atol=FLOAT32_BOUND, rtol=0
        )


def test_later_cached_steps_remember_the_padding():
    model, oracle = tiny_model(max_batch_size=2), tiny_oracle()
    ids, mask = random_ids(model, 2, COUNT), torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])
    logits_of(model, ids[:, :5], use_cache=True, attention_mask=mask)
    parts = [logits_of(model, part, use_cache=True) for part in ids[:, 5:].split([1, 4, 2], dim=1)]
    logits = np.concatenate(parts, axis=1)
    for row, first in enumerate((3, 0)):
        expected = oracle.logits(ids[row, first:])[5 - first :]
        np.testing.assert_allclose(logits[row], expected, atol=FLOAT32_BOUND, rtol=0)


@pytest.mark.parametrize("as_floats", [False, True], ids=["bool", "additive"])
def test_padding_combines_with_attn_mask(as_floats):
    model, oracle = tiny_model(), tiny_oracle()
    ids = random_ids(model, 2, COUNT)
    padding, mask = np.array(PADDING["left"], dtype=bool), prefix_lm(prefix=9)
    given = torch.from_numpy(additive(mask) if as_floats else mask)
    logits = logits_of(model, ids, attn_mask=given, attention_mask=torch.from_numpy(padding))
    assert np.isfinite(logits).all()
    for row in range(2):
        real = padding[row]
        expected = oracle.logits(ids[row][real], mask=additive(mask)[np.ix_(real, real)])
        np.testing.assert_allclose(logits[row][real], expected, atol=FLOAT32_BOUND, rtol=0)


def test_padding_lets_a_token_look_ahead_nowhere():
    """Trap: a padding mask taken for an attn_mask would make attention bidirectional."""
    model = tiny_model()
    ids = random_ids(model, 1, 6)
    changed = ids.clone()
    changed[0, 5] = (changed[0, 5] + 1) % model.config.vocab_size
    mask = torch.tensor([[0, 1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(
        logits_of(model, ids, attention_mask=mask)[:, :5],
        logits_of(model, changed, attention_mask=mask)[:, :5],
    )


def test_gradients_reach_an_additive_mask():
    model = tiny_model()
    bias = torch.zeros(6, 6, requires_grad=True)
    model(random_ids(model, 1, 6), attn_mask=bias).logits.sum().backward()
    assert bias.grad.any()


def test_a_copied_model_has_masks_of_its_own():
    model = tiny_model()
    logits_of(model, random_ids(model, 1, 3), use_cache=True)
    logits_of(model, random_ids(model, 1, 3), use_cache=True)
    copied = copy.deepcopy(model)
    assert (model.causal_masks.nbytes, copied.causal_masks.nbytes) == (64 * 64, 0)
    ids = random_ids(model, 1, 4, seed=3)
    np.testing.assert_array_equal(
        logits_of(copied, ids, use_cache=True), logits_of(model, ids, use_cache=True)
    )


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            torch.ones(2, 4, dtype=torch.bool),
            r"attn_mask has shape \(2, 4\).*Padding belongs in attention_mask",
        ),
        (torch.ones(3, 4, 4, dtype=torch.bool), r"\(1 or 2, 4, 4\)"),
        (torch.ones(2, 2, 4, 4, dtype=torch.bool), r"\(1 or 2, 1, 4, 4\)"),
        (torch.ones(4, 5, dtype=torch.bool), r"\(T, S\) = \(4, 4\)"),
        (torch.ones(1, 1, 1, 4, 4, dtype=torch.bool), "attn_mask has shape"),
        (torch.full((4, 4), 2), "values other than 0 and 1"),
        (torch.full((4, 4), float("nan")), "NaN"),
        (torch.full((4, 4), float("inf")), r"\+inf"),
        (torch.ones(4, 4).tril(), r"zeros and ones.*attn_mask.astype\(bool\)"),
        (torch.ones(4, 4, dtype=torch.long).tril(diagonal=-1), "hides every key from token 0 of row 0"),
        (torch.ones(4, 4).tril(diagonal=-1).log(), "hides every key from token 0 of row 0"),
    ],
)
def test_bad_attn_mask(mask, message):
    model = tiny_model()
    with pytest.raises(InvalidInputError, match=message):
        model(random_ids(model, 2, 4), attn_mask=mask)


def test_the_shapes_for_one_row_name_no_other_batch():
    model = tiny_model()
    with pytest.raises(InvalidInputError, match=r"= \(4, 4\), \(1, 4, 4\) or \(1, 1, 4, 4\)"):
        model(random_ids(model, 1, 4), attn_mask=torch.ones(2, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 3), r"attention_mask has shape \(2, 3\).*\(2, 4\).*belongs in attn_mask"),
        (torch.ones(4, 4), r"attention_mask has shape \(4, 4\)"),
        (torch.full((2, 4), -1), "values other than 0 and 1"),
        (torch.ones(2, 4), "dtype float32; it must be bool or integers"),
    ],
)
def test_bad_attention_mask(mask, message):
    model = tiny_model()
    with pytest.raises(InvalidInputError, match=message):
        model(random_ids(model, 2, 4), attention_mask=mask)


def test_a_token_whose_only_visible_keys_are_padding():
    model = tiny_model()
    mask = torch.eye(4, dtype=torch.bool)
    mask[3] = torch.tensor([True, False, False, False])
    with pytest.raises(InvalidInputError, match=r"together with attention_mask hides.*token 3 of row 0"):
        model(random_ids(model, 1, 4), attn_mask=mask, attention_mask=torch.tensor([[0, 1, 1, 1]]))
