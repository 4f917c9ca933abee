"""The cached forward pass: equal to the uncached one, whatever the chunking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge.errors import InvalidInputError
from tests.modeling.tiny import FLOAT32_BOUND, SHAPES, logits_of, random_ids, tiny_model, tiny_oracle


def in_chunks(model, ids, sizes, **options):
    """Logits of all tokens, fed to the cache in chunks of the given sizes."""
    assert sum(sizes) == ids.shape[1]
    parts = [logits_of(model, part, use_cache=True, **options) for part in ids.split(list(sizes), dim=1)]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "sizes",
    [(1,) * 33, (33,), (32, 1), (1, 32), (5, 1, 1, 7, 19)],
    ids=["ones", "whole", "last", "first", "mixed"],
)
def test_chunks_equal_the_oracle(shape, sizes):
    model, oracle = tiny_model(**shape), tiny_oracle(**shape)
    ids = random_ids(model, 1, 33)
    np.testing.assert_allclose(
        in_chunks(model, ids, sizes)[0], oracle.logits(ids[0]), atol=FLOAT32_BOUND, rtol=0
    )


@settings(max_examples=30)
@given(data=st.data())
def test_any_chunks_of_any_batch_equal_the_uncached_pass(data):
    rows = data.draw(st.integers(1, 4), label="rows")
    sizes = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=12), label="sizes")
    dtype = data.draw(st.sampled_from(["float32", "float16"]), label="kv_cache_dtype")
    while sum(sizes) > 200:
        sizes.pop()
    model = tiny_model(block_size=200, max_batch_size=4, kv_cache_dtype=dtype)
    ids = random_ids(model, rows, sum(sizes))
    bound = FLOAT32_BOUND if dtype == "float32" else 0.1  # float16 keeps 11 bits of keys and values
    np.testing.assert_allclose(in_chunks(model, ids, sizes), logits_of(model, ids), atol=bound, rtol=0)


@pytest.mark.parametrize("sizes", [(1,) * 20, (20,), (3, 1, 16)], ids=str)
def test_float16_cache_equals_an_oracle_that_rounds_keys_and_values(sizes):
    model, oracle = tiny_model(kv_cache_dtype="float16"), tiny_oracle()
    ids = random_ids(model, 1, 20)
    rounded, exact = oracle.logits(ids[0], kv_dtype=np.float16), oracle.logits(ids[0])
    logits = in_chunks(model, ids, sizes)[0]
    # Not bit for bit: a float32 key next to a rounding boundary may round the other way than a float64 one.
    assert np.abs(logits - rounded).mean() < 0.2 * np.abs(exact - rounded).mean()
    np.testing.assert_allclose(logits, rounded, atol=0.02, rtol=0)


def test_the_cache_can_be_filled_to_the_last_position():
    model, oracle = tiny_model(block_size=50), tiny_oracle(block_size=50)
    ids = random_ids(model, 1, 50)
    np.testing.assert_allclose(
        in_chunks(model, ids, (49, 1))[0], oracle.logits(ids[0]), atol=FLOAT32_BOUND, rtol=0
    )
    with pytest.raises(
        InvalidInputError, match=r"50 past and 1 new tokens make 51 positions.*clear_kv_cache"
    ):
        model(ids[:, :1], use_cache=True)


def test_uncached_calls_leave_the_cache_alone():
    model = tiny_model()
    ids = random_ids(model, 1, 20)
    logits_of(model, ids[:, :10], use_cache=True)
    logits_of(model, random_ids(model, 3, 7))
    np.testing.assert_allclose(
        logits_of(model, ids[:, 10:], use_cache=True),
        logits_of(model, ids)[:, 10:],
        atol=FLOAT32_BOUND,
        rtol=0,
    )


@pytest.mark.parametrize("forget", ["clear_kv_cache", "free_kv_cache"])
def test_forgetting_begins_anew_with_any_number_of_rows(forget):
    model = tiny_model(max_batch_size=3)
    logits_of(model, random_ids(model, 2, 9), use_cache=True)
    getattr(model, forget)()
    ids = random_ids(model, 3, 5, seed=4)
    np.testing.assert_allclose(
        logits_of(model, ids, use_cache=True), logits_of(model, ids), atol=FLOAT32_BOUND, rtol=0
    )


def test_a_refused_step_leaves_the_cache_as_it_was():
    model = tiny_model()
    ids = random_ids(model, 1, 12)
    logits_of(model, ids[:, :6], use_cache=True)
    for bad in ({"input_ids": ids[:, :0]}, {"input_ids": ids[:, :2], "attn_mask": torch.ones(2, 2)}):
        with pytest.raises(InvalidInputError):
            model(bad.pop("input_ids"), use_cache=True, **bad)
    np.testing.assert_allclose(
        logits_of(model, ids[:, 6:], use_cache=True), logits_of(model, ids)[:, 6:], atol=FLOAT32_BOUND, rtol=0
    )


def test_a_refused_first_step_leaves_the_number_of_rows_open():
    model = tiny_model(max_batch_size=2)
    with pytest.raises(InvalidInputError, match="block_size"):
        model(torch.zeros(2, model.config.block_size + 1, dtype=torch.int64), use_cache=True)
    ids = random_ids(model, 1, 5)
    np.testing.assert_allclose(
        logits_of(model, ids, use_cache=True), logits_of(model, ids), atol=FLOAT32_BOUND, rtol=0
    )


def test_an_interrupted_step_leaves_the_cache_as_it_was(monkeypatch):
    model = tiny_model()
    ids = random_ids(model, 1, 12)
    logits_of(model, ids[:, :6], use_cache=True)
    with monkeypatch.context() as patch:

        def interrupt(*_):
            raise KeyboardInterrupt

        patch.setattr(model.transformer.h[1].mlp, "forward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(ids[:, 5:9], use_cache=True)
    np.testing.assert_allclose(
        logits_of(model, ids[:, 6:], use_cache=True), logits_of(model, ids)[:, 6:], atol=FLOAT32_BOUND, rtol=0
    )


def test_cached_steps_record_no_gradients():
    model = tiny_model()
    assert not model(random_ids(model, 1, 4), use_cache=True).logits.requires_grad
    assert model(random_ids(model, 1, 4)).logits.requires_grad


# --- bad input ----------------------------------------------------------------------------------------------


def test_rows_are_limited_by_max_batch_size():
    model = tiny_model(max_batch_size=2)
    with pytest.raises(InvalidInputError, match=r"3 rows, but max_batch_size is 2.*max_batch_size=3"):
        model(random_ids(model, 3, 4), use_cache=True)
    logits_of(model, random_ids(model, 3, 4))  # without the cache there is no limit


def test_rows_must_stay_the_same():
    model = tiny_model(max_batch_size=2)
    logits_of(model, random_ids(model, 2, 4), use_cache=True)
    with pytest.raises(InvalidInputError, match=r"1 rows, but the KV cache continues 2.*clear_kv_cache"):
        model(random_ids(model, 1, 4), use_cache=True)


def test_a_model_without_cache_refuses_cached_steps():
    model = tiny_model(use_kv_cache=False)
    with pytest.raises(InvalidInputError, match="use_kv_cache is False"):
        model(random_ids(model, 1, 4), use_cache=True)


def test_a_model_in_training_refuses_cached_steps():
    model = tiny_model().train()
    with pytest.raises(InvalidInputError, match=r"eval\(\)"):
        model(random_ids(model, 1, 4), use_cache=True)
