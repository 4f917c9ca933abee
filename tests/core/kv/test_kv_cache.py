"""KV storage: memory, layouts, prefixes and refusals. Random schedules are in test_kv_schedules.py."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from sabiyarn_edge._core import KvCache
from tests.device import EMULATED

LAYERS, HEADS, HEAD_DIM = 2, 3, 4


def make_cache(window: int, *, dtype: str = "float16", sinks: int = 0, min_capacity: int = 2) -> KvCache:
    return KvCache(
        num_layers=LAYERS,
        num_heads=HEADS,
        head_dim=HEAD_DIM,
        dtype=dtype,
        window=window,
        num_sink_tokens=sinks,
        min_capacity=min_capacity,
    )


def append(cache: KvCache, row: int, values: np.ndarray) -> None:
    """Do what the graph does: write [count, layers, 2, heads, head_dim] at the end of the row's live slots."""
    count = len(values)
    end = cache.begin_append(row, count)
    for layer in range(LAYERS):
        for index, side in enumerate(("key", "value")):
            view = cache.buffer(layer, side)
            assert view is not None
            view[row, :, end - count : end] = values[:, layer, index].transpose(1, 0, 2)


def stored(cache: KvCache, row: int, position: int) -> np.ndarray:
    slot = cache.slot_of(row, position)
    assert slot >= 0
    sides = [
        [cache.buffer(layer, side)[row, :, slot] for side in ("key", "value")] for layer in range(LAYERS)
    ]
    return np.array(sides)


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
def test_memory_is_lazy_doubles_and_is_counted_to_the_byte(dtype: str) -> None:
    cache = make_cache(24, dtype=dtype, min_capacity=4)
    value_bytes = {"int8": 1, "float16": 2, "float32": 4}[dtype]
    assert cache.bytes_per_position == 2 * LAYERS * HEADS * HEAD_DIM * value_bytes
    cache.reset(2)
    assert (cache.nbytes, cache.capacity) == (0, 0)
    seen = []
    for length in range(1, 30):
        cache.begin_append(1, 1)
        assert cache.nbytes == 2 * cache.capacity * cache.bytes_per_position
        seen.append(cache.capacity)
        assert cache.length(1) == min(length, 24)
    assert sorted(set(seen)) == [4, 8, 16, 24]  # doubled, and the last one is the window itself
    cache.free()
    assert (cache.nbytes, cache.num_rows) == (0, 0)


def test_clear_zeroes_and_keeps_the_memory() -> None:
    cache = make_cache(8, min_capacity=8)
    cache.reset(2)
    append(cache, 1, np.ones((8, LAYERS, 2, HEADS, HEAD_DIM), np.float16))
    before = cache.nbytes
    cache.clear()
    assert cache.nbytes == before > 0
    cache.reset(2)
    cache.reserve(8)
    for layer in range(LAYERS):
        for side in ("key", "value"):
            assert not cache.buffer(layer, side).any()
    assert cache.nbytes == before


def test_a_smaller_layout_reuses_the_memory_of_a_larger_one() -> None:
    cache = make_cache(64, min_capacity=4)
    cache.reset(3)
    cache.reserve(64)
    before = cache.nbytes
    cache.reset(1)
    cache.reserve(3)
    assert (cache.capacity, cache.nbytes) == (4, before)


def test_layout_version_tells_when_bindings_are_stale() -> None:
    cache = make_cache(16, min_capacity=4)
    for _ in ("new memory", "the same memory"):
        before = cache.layout_version
        cache.reset(1)
        versions = [cache.layout_version]
        assert before != versions[0]
        for _ in range(9):
            cache.begin_append(0, 1)
            versions.append(cache.layout_version)
        changes = [i for i in range(1, 10) if versions[i] != versions[i - 1]]
        assert changes == [1, 5, 9]  # capacity 0 -> 4 -> 8 -> 16
    for change in (
        lambda: cache.reorder([0, 0]),
        lambda: cache.reorder([1]),
        lambda: cache.keep_prefix(0, 1),
    ):
        before = cache.layout_version
        change()
        assert cache.layout_version != before


def test_the_first_allocation_is_no_larger_than_the_window() -> None:
    cache = make_cache(8, min_capacity=256)
    cache.reset(1)
    cache.begin_append(0, 1)
    assert (cache.capacity, cache.nbytes) == (8, 8 * cache.bytes_per_position)


def test_a_kept_prefix_packs_a_row_of_a_large_layout_into_a_small_one() -> None:
    cache = make_cache(64, min_capacity=4)
    cache.reset(3)
    values = np.arange(40 * LAYERS * 2 * HEADS * HEAD_DIM, dtype=np.float16).reshape(
        40, LAYERS, 2, HEADS, HEAD_DIM
    )
    append(cache, 2, values)
    before = cache.nbytes
    cache.keep_prefix(2, 7)
    assert (cache.num_rows, cache.capacity, cache.next_position(0)) == (1, 8, 7)
    assert cache.nbytes == before  # kept for the next reserve()
    for position in range(7):
        np.testing.assert_array_equal(stored(cache, 0, position), values[position])


def test_a_prefix_that_is_not_there_is_refused() -> None:
    cache = make_cache(8)
    cache.reset(1)
    append(cache, 0, np.ones((5, LAYERS, 2, HEADS, HEAD_DIM), np.float16))
    for total in (0, 6):
        with pytest.raises(IndexError, match="more than the row was given"):
            cache.keep_prefix(0, total)
    append(cache, 0, np.ones((4, LAYERS, 2, HEADS, HEAD_DIM), np.float16))
    with pytest.raises(IndexError, match="positions were evicted"):
        cache.keep_prefix(0, 2)
    assert cache.length(0) == 8


def test_bad_rows_and_sizes_are_refused() -> None:
    cache = make_cache(8)
    with pytest.raises(IndexError, match="row 0 is not one of the 0 rows"):
        cache.begin_append(0, 1)
    cache.reset(2)
    with pytest.raises(IndexError, match="not a row of the cache"):
        cache.reorder([0, 2])
    with pytest.raises(IndexError, match="more positions than the window"):
        cache.reserve(9)
    with pytest.raises(ValueError, match="'float16', 'float32' or 'int8'"):
        make_cache(8, dtype="float64")
    with pytest.raises(ValueError, match="an append takes"):
        cache.begin_append(0, 9)
    assert (cache.num_rows, cache.nbytes) == (2, 0)


def test_a_row_that_started_again_has_nothing_in_common_with_its_fork() -> None:
    cache = make_cache(8)
    values = np.arange(10 * LAYERS * 2 * HEADS * HEAD_DIM, dtype=np.float16).reshape(
        10, LAYERS, 2, HEADS, HEAD_DIM
    )
    cache.reset(1)
    append(cache, 0, values[:5])
    cache.reorder([0, 0])
    cache.restart(1)
    append(cache, 1, values[5:])
    cache.reorder([1, 0])
    for position in range(5):
        np.testing.assert_array_equal(stored(cache, 0, position), values[5 + position])
        np.testing.assert_array_equal(stored(cache, 1, position), values[position])


def test_rows_that_begin_alike_share_no_more_than_that() -> None:
    """One reorder into a pair with 60 positions in common, one that has 40 with them, and one that has none."""
    cache = KvCache(num_layers=1, num_heads=2, head_dim=64, dtype="float16", window=128, min_capacity=128)

    def fill(row: int, count: int, number: int) -> None:
        end = cache.begin_append(row, count)
        for side in ("key", "value"):
            cache.buffer(0, side)[row, :, end - count : end] = number

    cache.reset(2)
    fill(0, 40, 1)
    fill(1, 40, 2)
    cache.reorder([0, 0, 1])
    for row, number in enumerate((3, 4, 5)):
        fill(row, 20, number)
    cache.reorder([0, 1, 0, 2])
    for row, (first, then) in enumerate([(1, 3), (1, 4), (1, 3), (2, 5)]):
        for side in ("key", "value"):
            held = cache.buffer(0, side)[row, :, :60]
            assert (held[:, :40] == first).all() and (held[:, 40:] == then).all()


@pytest.mark.skipif(sys.platform != "linux" or EMULATED, reason="reads /proc; an emulator keeps no limit")
def test_a_cache_that_runs_out_of_memory_is_empty_and_goes_on() -> None:
    """The first buffers have their new layout by then, and the others cannot have it."""
    import resource

    window = 2**16  # 64 MiB of addresses per buffer and row, of which next to nothing is written
    cache = KvCache(num_layers=4, num_heads=4, head_dim=64, dtype="float32", window=window)
    cache.reset(1)
    cache.begin_append(0, 3)
    cache.reserve(window)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, limits[1]))
    try:
        with pytest.raises(MemoryError):
            cache.reorder([0, 0])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert (cache.num_rows, cache.capacity, cache.nbytes) == (0, 0, 0)
    cache.reset(2)
    assert cache.begin_append(1, 1) == 1


def proportional_bytes() -> int:
    """This process's memory, shared pages counted once (Pss of all mappings)."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return 1024 * int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="rows share pages on Linux only")
def test_beams_take_the_memory_of_their_prompt_once() -> None:
    cache = KvCache(num_layers=4, num_heads=4, head_dim=64, dtype="float16", window=2048, min_capacity=1024)
    empty = proportional_bytes()
    cache.reset(1)
    prompt, new, beams = 1000, 16, 32
    cache.begin_append(0, prompt)
    for layer in range(4):
        for side in ("key", "value"):
            cache.buffer(layer, side)[0, :, :prompt] = 1
    before = proportional_bytes()
    cache.reorder([0] * beams)
    for _ in range(new):
        for row in range(beams):
            end = cache.begin_append(row, 1)
            for layer in range(4):
                for side in ("key", "value"):
                    cache.buffer(layer, side)[row, :, end - 1] = row
    cache.reorder([*range(1, beams), 0])  # in a circle
    for row in range(beams):
        assert (cache.buffer(0, "key")[row, :, prompt : prompt + new] == (row + 1) % beams).all()
    cache.reorder([*range(beams // 2), *range(beams // 2)])
    grown = proportional_bytes() - before
    # Each row has private pages where it wrote: 16 positions of 128 bytes stand in at most 2 pages per head, layer
    # and side, as prompt pages that are partly overwritten are copied whole. 1 MiB for everything else.
    private = beams * 4 * 2 * 4 * 2 * 4096
    assert grown < private + 2**20
    assert private < cache.bytes_per_position * prompt * beams / 8  # far below what copies would take
    assert (cache.buffer(3, "value")[:, :, prompt - 1] == 1).all()
    for row in range(beams):
        assert (cache.buffer(0, "key")[row, :, prompt : prompt + new] == row % (beams // 2) + 1).all()
    cache.reset(1)
    cache.reserve(prompt)
    assert proportional_bytes() - empty < 2**20  # the system has all of it back
