"""The pool of prefixes, against a dictionary of all that was ever added."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sabiyarn_edge.engine.prefix_cache import BLOCK_TOKENS, PrefixCache, PrefixPin, common_prefix
from tests.schedules import LENGTHS, schedule_settings

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
@settings(max_examples=60)
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
@settings(max_examples=20)
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


def test_of_a_text_larger_than_the_limit_the_beginning_is_kept() -> None:
    tokens = list(range(200))
    pool = PrefixCache(150 * TOKEN_BYTES)
    add(pool, tokens)
    assert matched(pool, tokens) == 128  # two blocks of 64, where a third would be too much


def test_where_there_is_room_for_part_of_a_text_only_its_beginning_is_kept() -> None:
    tokens = list(range(200))
    pool = PrefixCache(10**9)
    pool.add(tokens, lambda first, end: computed(tokens)[:, :, :, first:end], 150 * TOKEN_BYTES)
    assert matched(pool, tokens) == 128


def test_a_pin_keeps_nothing_of_other_texts() -> None:
    pool, tokens = PrefixCache(), text((1, 50))
    pin: PrefixPin | None = pool.pin(tokens)
    add(pool, tokens)
    other = pool.pin(text((2, 50)))
    pin = None
    gc.collect()
    pool.trim()
    assert (pin, pool.nbytes, len(other.tokens)) == (None, 0, 50)


def test_what_is_pinned_goes_too_where_memory_is_wanted() -> None:
    pool = PrefixCache()
    pin = pool.pin(list(range(200)))
    add(pool, pin.tokens)
    pool.trim(150 * TOKEN_BYTES)
    assert matched(pool, pin.tokens) == 128


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


class PoolSchedule(RuleBasedStateMachine):
    """Texts are added, found, pinned, let go of; what is held is a function of each text's tokens alone."""

    @initialize(limit_tokens=st.integers(0, 400))
    def start(self, limit_tokens: int) -> None:
        self.limit = limit_tokens * TOKEN_BYTES
        self.pool = PrefixCache(self.limit)
        self.added: list[list[int]] = []
        self.pins: list[tuple[PrefixPin, bool]] = []
        """With each, whether its text was added since."""

    @rule(tokens=TEXTS, data=st.data())
    def add_a_text(self, tokens: list[int], data: st.DataObject) -> None:
        if self.added and data.draw(st.booleans(), "goes on"):
            tokens = [*data.draw(st.sampled_from(self.added), "text"), *tokens][:400]
        before = self.pool.nbytes
        add(self.pool, tokens)
        self.added.append(tokens)
        self.pins = [
            (pin, there or common_prefix(pin.tokens, tokens) == len(pin.tokens)) for pin, there in self.pins
        ]
        # A text takes at most a block more than its tokens, and nothing is dropped that has room.
        least = min(before, self.limit - BLOCK_TOKENS * TOKEN_BYTES)
        assert self.pool.nbytes > least or self.pool.nbytes == before

    @rule(data=st.data(), more=TEXTS)
    def find(self, data: st.DataObject, more: list[int]) -> None:
        if not self.added:
            return
        text = data.draw(st.sampled_from(self.added), "text")
        wanted = [*text[: data.draw(st.integers(0, len(text)), "cut")], *more]
        before = self.pool.nbytes
        assert matched(self.pool, wanted) <= max(common_prefix(tokens, wanted) for tokens in self.added)
        assert self.pool.nbytes == before

    @rule(data=st.data(), tokens=TEXTS)
    def pin(self, data: st.DataObject, tokens: list[int]) -> None:
        if self.added and data.draw(st.booleans(), "a known text"):
            tokens = data.draw(st.sampled_from(self.added), "text")
        self.pins.append((self.pool.pin(tokens), matched(self.pool, tokens) == len(tokens)))

    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        if self.pins:
            del self.pins[data.draw(st.integers(0, len(self.pins) - 1), "pin")]
            gc.collect()
            self.pool.trim()

    @rule(most_tokens=st.integers(0, 300))
    def shrink(self, most_tokens: int) -> None:
        self.pool.trim(most_tokens * TOKEN_BYTES)
        assert self.pool.nbytes <= most_tokens * TOKEN_BYTES
        self.pins = [(pin, matched(self.pool, pin.tokens) == len(pin.tokens)) for pin, _ in self.pins]

    @rule(tokens=TEXTS, most_tokens=st.integers(0, 300))
    def add_where_there_is_little_room(self, tokens: list[int], most_tokens: int) -> None:
        most = max(most_tokens * TOKEN_BYTES, self.pool.nbytes)
        self.pool.add(tokens, lambda first, end: computed(tokens)[:, :, :, first:end], most)
        assert self.pool.nbytes <= most
        self.added.append(tokens)
        self.pins = [(pin, matched(self.pool, pin.tokens) == len(pin.tokens)) for pin, _ in self.pins]

    @invariant()
    def the_limit_holds_and_pins_do(self) -> None:
        if not hasattr(self, "pool"):
            return
        pinned = {tuple(pin.tokens[: i + 1]) for pin, _ in self.pins for i in range(len(pin.tokens))}
        most = self.limit + (len(pinned) + BLOCK_TOKENS * len(self.pins)) * TOKEN_BYTES
        assert self.pool.nbytes <= most
        for pin, there in self.pins:
            if there:
                assert sum(piece.shape[3] for piece in self.pool.match(pin.tokens)) == len(pin.tokens)


@pytest.mark.parametrize("longer", LENGTHS)
def test_any_schedule_keeps_the_limit_and_the_pins(longer: int) -> None:
    run_state_machine_as_test(PoolSchedule, settings=schedule_settings(longer, schedules=15, steps=15))
