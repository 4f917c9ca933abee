"""Masks as callers give them: every accepted form, every refusal, and how prompts are cut under them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge._core import MaskCache
from sabiyarn_edge.calls.attention_masks import CallMasks, PromptMask, read_attn_mask
from sabiyarn_edge.errors import InvalidInputError

T = 4
MASK = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], bool)
ADDITIVE = np.where(MASK, 0, -np.inf)
INF = np.inf


def additive(mask: PromptMask) -> np.ndarray:
    """The whole mask as the graph gets it."""
    out = np.full((mask.length, mask.length), 7, np.float32)
    mask.write(out, MaskCache(largest=64))
    return out


# --- accepted forms


@pytest.mark.parametrize("shape", [(T, T), (1, T, T), (1, 1, T, T), (2, T, T), (2, 1, T, T)])
@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8, np.float32, np.float64, np.float16])
def test_every_shape_and_dtype(shape: tuple[int, ...], dtype: Any) -> None:
    first = ADDITIVE if np.issubdtype(dtype, np.floating) else MASK
    second = first.T if shape[0] == 2 else first
    given_mask = np.array([first, second] if shape[0] == 2 else first).astype(dtype).reshape(shape)
    masks = read_attn_mask(given_mask, [T, T])
    expected = ADDITIVE, (ADDITIVE.T if shape[0] == 2 else ADDITIVE)
    for mask, values in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(additive(mask), values)
        np.testing.assert_array_equal(mask.last_row, values[-1])


def test_lists_for_prompts_of_unequal_length() -> None:
    masks = read_attn_mask([MASK, None, [[1, 1], [1, 1]]], [T, 3, 2])
    np.testing.assert_array_equal(additive(masks[0]), ADDITIVE)
    np.testing.assert_array_equal(additive(masks[1]), np.triu(np.full((3, 3), -INF), k=1))
    np.testing.assert_array_equal(additive(masks[2]), np.zeros((2, 2)))


def test_additive_values_are_kept() -> None:
    values = np.random.default_rng(0).normal(size=(T, T))
    np.testing.assert_array_equal(additive(read_attn_mask(values, [T])[0]), values.astype(np.float32))


def test_chunks_of_rows_are_written_where_they_belong() -> None:
    for mask in (*read_attn_mask(ADDITIVE, [T]), *read_attn_mask(MASK, [T])):
        out = np.full((2, 5), 7, np.float32)
        mask.write(out[:, :3], MaskCache(largest=64))
        np.testing.assert_array_equal(out[:, :3], ADDITIVE[1:3, :3])
        assert (out[:, 3:] == 7).all()


def test_causal_prompts_need_no_mask() -> None:
    assert CallMasks(None).of_prompts([3]) is None
    assert CallMasks([None, None]).of_prompts([3, 2]) is None


# --- padding


def test_padding_leaves_prompts_and_masks() -> None:
    masks = CallMasks(MASK, [[0, 1, 1, 0], [1, 1, 1, 1]])
    prompts = masks.without_padding([[9, 1, 2, 9], [3, 4, 5, 6]])
    assert [ids.tolist() for ids in prompts] == [[1, 2], [3, 4, 5, 6]]
    cut, whole = masks.of_prompts([2, 4]) or []
    np.testing.assert_array_equal(additive(cut), [[0, -INF], [0, 0]])
    np.testing.assert_array_equal(additive(whole), ADDITIVE)


def test_padding_leaves_causal_prompts_of_a_list() -> None:
    masks = CallMasks([None, MASK], [[0, 1, 1, 0], [1, 1, 1, 1]])
    masks.without_padding([[9, 1, 2, 9], [3, 4, 5, 6]])
    causal, whole = masks.of_prompts([2, 4]) or []
    assert (causal.length, causal.values, whole.length) == (2, None, 4)


def test_one_prompt_stays_one_prompt() -> None:
    kept = CallMasks(None, [[0, 1, 1]]).without_padding([7, 8, 9])
    assert kept.tolist() == [8, 9]


# --- cuts


@st.composite
def any_mask(draw: st.DrawFn) -> np.ndarray:
    size = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.05, 0.3]))
    return np.tri(size, dtype=bool) | (rng.random((size, size)) < density)


@given(any_mask(), st.integers(1, 6), st.sampled_from(["bool", "inf", "finfo"]))
@settings(max_examples=200)
def test_no_chunk_looks_ahead_and_none_is_longer_than_needed(mask: np.ndarray, most: int, kind: str) -> None:
    hidden = {"inf": -INF, "finfo": np.finfo(np.float32).min, "bool": 0}[kind]
    values = mask if kind == "bool" else np.where(mask, 0, hidden).astype(np.float32)
    size = len(mask)
    chunks = list(PromptMask(size, values).chunks(most))
    assert sum(count for _, count in chunks) == size
    cuts = [end for end in range(1, size + 1) if not mask[:end, end:].any()]
    expected = 0
    for first, count in chunks:
        assert first == expected
        expected = first + count
        assert expected in cuts
        allowed = [end for end in cuts if first < end <= first + most]
        assert expected == (allowed[-1] if allowed else min(end for end in cuts if end > first))


def test_a_token_from_which_all_is_hidden_alike_sees_all() -> None:
    """Softmax of equal scores, however low, is uniform; only -inf takes part in nothing."""
    lowest = np.finfo(np.float32).min
    values = np.array([[lowest, lowest, -INF], [0, 0, -INF], [0, 0, 0]], np.float32)
    assert list(PromptMask(3, values).chunks(1)) == [(0, 2), (2, 1)]


def test_causal_prompts_are_cut_anywhere() -> None:
    assert list(PromptMask(7, None).chunks(3)) == [(0, 3), (3, 3), (6, 1)]


# --- refusals

HOLE = MASK.copy()
HOLE[2] = False


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            np.ones((T, T + 1), bool),
            r"attn_mask has shape \(4, 5\); for B = 2 prompts of T = 4 tokens .*\(1 or 2, 4, 4\)",
        ),
        (np.ones((3, T, T), bool), r"attn_mask has shape \(3, 4, 4\)"),
        (np.ones((2, 3, T, T), bool), r"attn_mask has shape \(2, 3, 4, 4\)"),
        (np.ones(T, bool), r"attn_mask has shape \(4,\)"),
        (np.ones((2, T), bool), "Padding belongs in attention_mask"),
        (True, r"attn_mask has shape \(\)"),
        ("causal", r"attn_mask has shape \(\)"),
        (np.full((T, T), 2), "values other than 0 and 1"),
        (
            MASK.astype(complex),
            "attn_mask has dtype complex128; it must be bool, integers 0 and 1, or floats",
        ),
        (MASK.astype(object), "attn_mask has dtype object"),
        (MASK.astype(np.float32), "float mask of zeros and ones"),
        (np.where(MASK, np.nan, 0), r"holds NaN, \+inf or"),
        (np.where(MASK, INF, 0), r"holds NaN, \+inf or"),
        (np.where(MASK, 1e39, 0), "above float32's"),
        (HOLE, "attn_mask hides every key from token 2 of row 0"),
        (np.array([MASK, HOLE]), "attn_mask hides every key from token 2 of row 1"),
        (np.where(HOLE, 0, -INF), "attn_mask hides every key from token 2 of row 0"),
        (np.where(HOLE, 0, -1e300), "attn_mask hides every key from token 2 of row 0"),
        ([MASK], "a list of 1 masks, but there are 2 prompts"),
        ([MASK, None, None], "a list of 3 masks, but there are 2 prompts"),
        ([MASK, np.ones((3, 3), bool)], r"attn_mask has shape \(3, 3\); for B = 1 prompts of T = 4 tokens"),
        ([[True, False], [True]], "attn_mask is .*, but must be lists whose rows have equal length"),
    ],
)
def test_masks_that_make_no_sense(mask: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CallMasks(mask).of_prompts([T, T])


def test_one_array_for_prompts_of_unequal_length() -> None:
    with pytest.raises(InvalidInputError, match="one array, but the prompts have 3 to 4 tokens"):
        CallMasks(MASK).of_prompts([4, 3])


def test_a_token_that_sees_only_padding_is_named_by_its_place() -> None:
    masks = CallMasks(np.eye(T, dtype=bool)[[0, 0, 0, 3]], [[1, 1, 1, 1], [0, 0, 1, 1]])
    masks.without_padding([[1] * T, [2] * T])
    with pytest.raises(
        InvalidInputError,
        match="attn_mask together with attention_mask hides every key from token 2 of row 1",
    ):
        masks.of_prompts([4, 2])


@pytest.mark.parametrize(
    ("mask", "inputs", "message"),
    [
        ([[1, 1]], [[1, 2, 3]], r"attention_mask has shape \(1, 2\), but the prompts are 1 rows of 3 ids"),
        ([1, 1, 1], [[1, 2, 3]], r"attention_mask has shape \(3,\)"),
        ([[1, 2, 1]], [[1, 2, 3]], "values other than 0 and 1"),
        ([[1.0, 0.0, 1.0]], [[1, 2, 3]], "attention_mask has dtype float64; it must be bool or integers"),
        ([[1, 1], [0, 0]], [[1, 2], [3, 4]], "attention_mask leaves no token of row 1"),
        ([[1, 1]], [[1, 2], [3]], "whose rows have equal length"),
        ([[1, 1]], "text", "attention_mask goes with token ids"),
        ([[1, 1]], [[0.5, 2.0]], "attention_mask goes with token ids"),
    ],
)
def test_padding_that_makes_no_sense(mask: Any, inputs: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CallMasks(None, mask).without_padding(inputs)
