"""What becomes of the keys and values of the KV cache's first row."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from sabiyarn_edge._core import KvCache
from sabiyarn_edge.engine.held_text import HeldText
from sabiyarn_edge.engine.prefix_cache import PrefixCache

TOKENS = [3, 1, 4, 1, 5]
SIDES = np.arange(2 * 2 * 5 * 3, dtype=np.float32).reshape(1, 2, 2, 5, 3)
"""[n_layer, 2, n_heads, tokens, head_dim]"""


@pytest.fixture
def cache() -> KvCache:
    """Empty, of 6 positions."""
    return KvCache(num_layers=1, num_heads=2, head_dim=3, dtype="float32", window=6)


def filled(cache: KvCache, pool: PrefixCache) -> HeldText:
    """The first row holds TOKENS."""
    text = HeldText(cache, 1, pool)
    assert text.begin(TOKENS, 6) == 0
    text.write(0, SIDES)
    text.remember(TOKENS)
    return text


def test_what_leaves_the_cache_comes_back_from_the_pool(cache: KvCache) -> None:
    text = filled(cache, PrefixCache(10**6))
    text.release()
    assert text.tokens == []
    assert text.begin([*TOKENS[:4], 9], 5) == 4
    np.testing.assert_array_equal(text.read(0, 4), SIDES[:, :, :, :4])


def test_what_has_lost_its_beginning_is_not_kept(cache: KvCache) -> None:
    text = filled(cache, PrefixCache(10**6))
    for token in (9, 2):
        cache.begin_append(0, 1)
        text.remember([*text.tokens, token])
    assert text.wrapped
    text.release()
    assert text.pool.nbytes == 0


def test_claims_that_have_ended_are_noticed_by_the_next_release(cache: KvCache) -> None:
    text = filled(cache, PrefixCache())
    claim = text.pool.claim(TOKENS)
    text.release()
    assert text.pool.nbytes == SIDES.nbytes
    del claim
    gc.collect()
    text.release()
    assert text.pool.nbytes == 0


def test_nothing_is_known_after_forgetting(cache: KvCache) -> None:
    text = filled(cache, PrefixCache(10**6))
    text.release()
    text.forget()
    assert (text.tokens, text.pool.nbytes) == ([], 0)
    assert text.begin(TOKENS, 5) == 0
