"""The pool of prefixes, against a dictionary of all that was ever added."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge.engine.prefix_cache import BLOCK_TOKENS, PrefixCache, PrefixPin, common_prefix

TOKEN_BYTES = 2 * 2 * 2 * 3 * 2
"""Of keys and values [2 layers, 2, 2 heads, 1, 3 values] in float16."""


def computed(tokens: list[int]) -> np.ndarray:
    """Stands for keys and values: each token's are a function of all tokens up to it, and of nothing else."""
    states = itertools.accumulate(tokens, lambda state, token: (31 * state + token + 1) % 100_003, initial=7)
    each = np.array(list(states)[1:])[None, None, None, :, None]  # [1, 1, 1, tokens, 1]
    return (each * np.arange(1, 25).reshape(2, 2, 2, 1, 3) % 1999).astype(np.float16)


def add(pool: PrefixCache, tokens: list[int]) -> None:
    pool.add(tokens, lambda first, end: computed(tokens)[:, :, :, first:end])


def matched(pool: PrefixCache, tokens: list[int]) -> int:
    pieces = pool.match(tokens)
    count = sum(piece.shape[3] for piece in pieces)
    if pieces:
        np.testing.assert_array_equal(np.concatenate(pieces, axis=3), computed(tokens[:count]))
    return count


def text(*parts: tuple[int, int]) -> list[int]:
    """Runs of (token, how many)."""
    return [token for token, count in parts for _ in range(count)]


TEXTS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 70)), min_size=1, max_size=4).map(
    lambda parts: text(*parts)
)


@given(st.lists(TEXTS, min_size=1, max_size=6), TEXTS)
@settings(max_examples=60, deadline=None)
def test_the_longest_known_beginning_is_found(added: list[list[int]], wanted: list[int]) -> None:
    pool = PrefixCache(10**9)
    for tokens in added:
        add(pool, tokens)
    assert matched(pool, wanted) == max(common_prefix(tokens, wanted) for tokens in added)
    distinct = {tuple(tokens[: i + 1]) for tokens in added for i in range(len(tokens))}
    # What two texts share is held once, but for less than a block where they part.
    assert len(distinct) <= pool.nbytes // TOKEN_BYTES < len(distinct) + BLOCK_TOKENS * len(added)
    pool.clear()
    assert (pool.nbytes, matched(pool, wanted)) == (0, 0)


@given(st.lists(st.tuples(TEXTS, st.booleans()), min_size=1, max_size=6), st.integers(0, 300))
@settings(max_examples=20, deadline=None)
def test_the_limit_holds_for_what_is_not_pinned(
    added: list[tuple[list[int], bool]], limit_tokens: int
) -> None:
    pool = PrefixCache(limit_tokens * TOKEN_BYTES)
    pins = []
    for tokens, pinned in added:
        if pinned:
            pins.append(pool.pin(tokens))
        add(pool, tokens)
        of_pins = {tuple(c.tokens[: i + 1]) for c in pins for i in range(len(c.tokens))}
        most = limit_tokens + len(of_pins) + BLOCK_TOKENS * len(pins)
        assert pool.nbytes <= most * TOKEN_BYTES
        assert all(matched(pool, pin.tokens) == len(pin.tokens) for pin in pins)
    pins.clear()
    gc.collect()
    pool.trim()
    assert pool.nbytes <= limit_tokens * TOKEN_BYTES


def test_the_least_recently_used_goes_first() -> None:
    a, b, c = text((1, 50)), text((2, 50)), text((3, 50))
    pool = PrefixCache(100 * TOKEN_BYTES)
    for tokens in (a, b):
        add(pool, tokens)
    assert matched(pool, a) == 50
    add(pool, c)
    assert [matched(pool, tokens) for tokens in (a, b, c)] == [50, 0, 50]
    add(pool, a)  # which is there: that is a use too
    add(pool, b)
    assert [matched(pool, tokens) for tokens in (a, b, c)] == [50, 50, 0]


def test_every_use_counts() -> None:
    a, b, c = text((1, 50)), text((2, 50)), text((3, 50))
    pool = PrefixCache(100 * TOKEN_BYTES)
    for tokens in (a, b, c):
        add(pool, tokens)
    assert [matched(pool, tokens) for tokens in (a, b, c)] == [0, 50, 50]
    add(pool, a)
    assert [matched(pool, tokens) for tokens in (a, b, c)] == [50, 0, 50]


def test_a_beginning_outlives_what_follows_it() -> None:
    head = text((1, 64))
    pool = PrefixCache(64 * 2 * TOKEN_BYTES)
    for token in range(2, 6):
        add(pool, [*head, *text((token, 64))])
        assert matched(pool, head) == 64
    assert matched(pool, [*head, *text((5, 64))]) == 128
    assert matched(pool, [*head, *text((4, 64))]) == 64


def test_without_a_limit_only_what_is_pinned_is_kept() -> None:
    pool = PrefixCache()
    tokens = text((1, 100))
    add(pool, tokens)
    assert pool.nbytes == 0
    pin: PrefixPin | None = pool.pin(tokens[:70])
    add(pool, tokens)
    assert pool.nbytes == 70 * TOKEN_BYTES
    assert pool.wants([*tokens[:30], 9]) == 30
    pin = None
    gc.collect()
    pool.trim()
    assert (pin, pool.nbytes) == (None, 0)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_a_text_that_grows_makes_its_last_block_longer(length: int) -> None:
    pool = PrefixCache(10**9)
    tokens = list(range(300))
    for end in range(1, length + 1, 7):
        add(pool, tokens[:end])
        assert pool.nbytes == end * TOKEN_BYTES
        assert matched(pool, tokens) == end
