"""Memory and rows of the torch model's KV cache."""

from __future__ import annotations

import pytest
import torch

from sabiyarn_edge.errors import NumericalError
from sabiyarn_edge.modeling.kv_cache import KvCache
from tests.modeling.tiny import GPTJXConfig

CPU = torch.device("cpu")


def make_cache(block_size=1000, kv_cache_dtype="float32"):
    config = GPTJXConfig(
        block_size=block_size, vocab_size=5, n_layer=3, n_heads=2, n_embd=8, kv_cache_dtype=kv_cache_dtype
    )
    return KvCache(config)


def feed(cache, counts, values):
    """Append values[b, t] in every element of row b's new position t, then count counts[b] of them."""
    rows, count = values.shape
    cache.reserve(count, CPU)
    seen = []
    for layer in range(3):
        key = (values + 100 * layer)[:, None, :, None].expand(rows, 2, count, 4)
        seen.append(cache.append(layer, key, -key))
    cache.advance(counts)
    return seen


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_capacity_grows_in_powers_of_two_up_to_block_size(dtype):
    cache = make_cache(block_size=1000, kv_cache_dtype=dtype)
    width = 4 if dtype == "float32" else 2
    assert (cache.capacity, cache.nbytes) == (0, 0)
    cache.start(3, CPU)
    capacities = []
    for _ in range(10):
        feed(cache, [100] * 3, torch.zeros(3, 100))
        capacities.append(cache.capacity)
        assert cache.nbytes == 2 * 3 * 3 * 8 * width * cache.capacity  # sides, layers, rows, n_embd
    assert capacities == [128, 256, 512, 512, 512, 1000, 1000, 1000, 1000, 1000]


def test_rows_of_different_length_are_appended_where_each_ends():
    cache = make_cache()
    cache.start(2, CPU)
    feed(cache, [3, 1], torch.tensor([[1.0, 2, 3], [4, 0, 0]]))
    feed(cache, [1, 1], torch.tensor([[5.0], [6]]))
    seen = feed(cache, [1, 1], torch.tensor([[7.0], [8]]))
    assert cache.lengths == [5, 3]
    for layer, (keys, values) in enumerate(seen):
        assert keys.shape == (2, 2, 5, 4)
        assert torch.equal(keys, -values)
        assert (keys[0, 1, :, 3] - 100 * layer).tolist() == [1, 2, 3, 5, 7]
        assert (keys[1, 0, :3, 0] - 100 * layer).tolist() == [4, 6, 8]


def test_growth_keeps_what_was_stored():
    cache = make_cache()
    cache.start(1, CPU)
    feed(cache, [60], torch.arange(60.0)[None])
    keys, _ = feed(cache, [300], torch.arange(60.0, 360.0)[None])[2]
    assert (keys[0, 0, :, 0] - 200).tolist() == list(range(360))


@pytest.mark.parametrize("sources", [[1, 0], [1], [0, 0, 1], [1, 1, 1, 1]], ids=str)
def test_reorder(sources):
    cache = make_cache()
    cache.start(2, CPU)
    feed(cache, [2, 1], torch.tensor([[1.0, 2], [3, 0]]))
    cache.visible = torch.tensor([[True, True], [True, False]])
    before, lengths = cache.visible, [2, 1]
    cache.reorder(sources)
    assert cache.lengths == [lengths[source] for source in sources]
    assert torch.equal(cache.visible, before[sources])
    keys, _ = feed(cache, [1] * len(sources), torch.full((len(sources), 1), 9.0))[0]
    for row, source in enumerate(sources):
        expected = [[1, 2, 9], [3, 9]][source]
        assert keys[row, 0, : len(expected), 0].tolist() == expected


def test_values_pass_through_the_storage_type():
    cache = make_cache(kv_cache_dtype="float16")
    cache.start(1, CPU)
    keys, _ = feed(cache, [1], torch.tensor([[1 + 2**-12]]))[0]
    assert keys.dtype == torch.float32
    assert (keys == 1).all()


def test_a_row_of_nan_hides_no_other_row():
    cache = make_cache(kv_cache_dtype="float16")
    cache.start(2, CPU)
    cache.reserve(1, CPU)
    new = torch.ones(2, 2, 1, 4)
    new[0], new[1, 0, 0, 1] = float("nan"), -1e6
    with pytest.raises(NumericalError, match="the keys of layer 0 reach 1e"):
        cache.append(0, new, torch.ones_like(new))


@pytest.mark.parametrize("largest", [65520.0, -7e4, 1e30])
def test_a_float16_cache_refuses_what_it_would_make_infinite(largest):
    cache = make_cache(kv_cache_dtype="float16")
    cache.start(1, CPU)
    cache.reserve(2, CPU)
    good = torch.ones(1, 2, 2, 4)
    bad = good.clone()
    bad[0, 1, 1, 2] = largest
    for name, pair in (("keys", (bad, good)), ("values", (good, bad))):
        with pytest.raises(NumericalError, match=f"the {name} of layer 2 reach") as caught:
            cache.append(2, *pair)
        assert f"reach {abs(largest):g}, but float16 ends at 65504" in str(caught.value)
        assert 'kv_cache_dtype="float32"' in str(caught.value)
    assert cache.lengths == [0]


@pytest.mark.parametrize(
    ("dtype", "given", "kept"),
    [("float16", 65519.0, 65504.0), ("float32", 1e30, 1e30), ("float16", float("inf"), float("inf"))],
    ids=["rounded-down", "float32", "infinite-already"],
)
def test_large_values_that_a_cache_can_hold(dtype, given, kept):
    cache = make_cache(kv_cache_dtype=dtype)
    cache.start(1, CPU)
    cache.reserve(1, CPU)
    keys, values = cache.append(0, torch.full((1, 2, 1, 4), given), torch.full((1, 2, 1, 4), -given))
    assert (keys == torch.tensor(kept)).all()
    assert (values == torch.tensor(-kept)).all()


def test_clear_keeps_zeroed_memory_and_free_releases_it():
    cache = make_cache()
    cache.start(2, CPU)
    feed(cache, [70, 70], torch.ones(2, 70))
    held = cache.nbytes
    cache.clear()
    assert (cache.lengths, cache.nbytes) == ([], held)
    cache.start(2, CPU)
    assert cache.nbytes == held
    keys, _ = feed(cache, [1, 1], torch.full((2, 1), 5.0))[0]
    assert keys.shape[2] == 1
    assert all(not buffer[:, :, 1:].any() for buffer in (*cache._keys, *cache._values))
    cache.free()
    assert (cache.lengths, cache.nbytes, cache.capacity) == ([], 0, 0)


def test_an_interrupted_growth_is_made_good(monkeypatch):
    cache = make_cache()
    cache.start(1, CPU)
    feed(cache, [3], torch.tensor([[1.0, 2, 3]]))
    zeros, calls = torch.zeros, []

    def fail_at_the_third(*shape, **options):
        calls.append(shape)
        if len(calls) == 3:
            raise MemoryError
        return zeros(*shape, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "zeros", fail_at_the_third)
        with pytest.raises(MemoryError):
            cache.reserve(100, CPU)
    keys, _ = feed(cache, [100], torch.full((1, 100), 4.0))[0]
    assert keys[0, 0, :, 0].tolist() == [1, 2, 3] + [4] * 100
