"""KV storage: memory, layouts, prefixes and refusals. Random schedules are in test_kv_schedules.py."""

from __future__ import annotations

import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from sabiyarn_edge._core import KvCache
from tests.device import EMULATED

LAYERS, HEADS, HEAD_DIM = 2, 3, 4


def make_cache(window: int, *, dtype: str = "float16", sinks: int = 0, min_capacity: int = 16) -> KvCache:
    return KvCache(
        num_layers=LAYERS,
        num_heads=HEADS,
        head_dim=HEAD_DIM,
        dtype=dtype,
        window=window,
        num_sink_tokens=sinks,
        min_capacity=min_capacity,
    )


def numbered(count: int) -> np.ndarray:
    """Positions [layers, 2, heads, count, head_dim] of which no two values are alike."""
    shape = LAYERS, 2, HEADS, count, HEAD_DIM
    return np.arange(np.prod(shape), dtype=np.float16).reshape(shape)


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
def test_memory_is_lazy_doubles_and_is_counted_to_the_byte(dtype: str) -> None:
    cache = make_cache(192, dtype=dtype, min_capacity=20)
    value_bytes = {"int8": 1, "float16": 2, "float32": 4}[dtype]
    assert cache.bytes_per_position == 2 * LAYERS * HEADS * HEAD_DIM * value_bytes
    cache.resize(2)
    assert (cache.nbytes, cache.capacity) == (0, 0)
    seen = []
    for total in range(1, 200):
        assert cache.begin_append(1, 1) == total
        assert cache.nbytes == 2 * cache.capacity * cache.bytes_per_position
        seen.append(cache.capacity)
    assert sorted(set(seen)) == [32, 64, 128, 192]  # doubled, and the last one is the ring itself
    cache.free()
    assert (cache.nbytes, cache.num_rows) == (0, 0)


def test_clear_zeroes_and_keeps_the_memory() -> None:
    cache = make_cache(64)
    cache.resize(2)
    cache.write(1, numbered(8))
    before = cache.nbytes
    cache.clear()
    assert cache.nbytes == before > 0
    cache.resize(2)
    cache.reserve(16)
    for layer in range(LAYERS):
        for side in ("key", "value"):
            assert not cache.buffer(layer, side).any()
    assert cache.nbytes == before


def test_a_smaller_layout_reuses_the_memory_of_a_larger_one() -> None:
    cache = make_cache(64)
    cache.resize(3)
    cache.reserve(64)
    before = cache.nbytes
    cache.clear()
    cache.resize(1)
    cache.reserve(3)
    assert (cache.capacity, cache.nbytes) == (16, before)


def test_layout_version_tells_when_bindings_are_stale() -> None:
    cache = make_cache(64)
    for _ in ("new memory", "the same memory"):
        before = cache.layout_version
        cache.clear()
        cache.resize(1)
        versions = [cache.layout_version]
        assert before != versions[0]
        for _ in range(70):
            cache.begin_append(0, 1)
            versions.append(cache.layout_version)
        changes = [i for i in range(1, 71) if versions[i] != versions[i - 1]]
        assert changes == [1, 17, 33]  # capacity 0 -> 16 -> 32 -> 64
        cache.clear()
        cache.resize(1)
        cache.begin_append(0, 1)
    for change in (lambda: cache.resize(2), cache.clear, cache.free):
        before = cache.layout_version
        change()
        assert cache.layout_version != before


def test_the_first_allocation_is_no_larger_than_the_ring() -> None:
    cache = make_cache(8, min_capacity=256)
    cache.resize(1)
    cache.begin_append(0, 1)
    assert cache.ring_size == 64
    assert (cache.capacity, cache.nbytes) == (64, 64 * cache.bytes_per_position)


def test_bad_rows_and_sizes_are_refused() -> None:
    cache = make_cache(8)
    with pytest.raises(IndexError, match="row 0 is not one of the 0 rows"):
        cache.begin_append(0, 1)
    cache.resize(2)
    for target in (0, 2, -1):
        with pytest.raises(IndexError, match=f"fork: row {target} is no other row of the 2"):
            cache.fork(0, [target], 0)
    with pytest.raises(IndexError, match="row 2 is not one of the 2 rows"):
        cache.fork(2, [0], 0)
    with pytest.raises(ValueError, match="rows are only added"):
        cache.resize(1)
    with pytest.raises(IndexError, match="reserve: 65 positions; a row holds at most 64"):
        cache.reserve(65)
    with pytest.raises(ValueError, match="'float16', 'float32' or 'int8'"):
        make_cache(8, dtype="float64")
    with pytest.raises(ValueError, match="an append of 65 tokens"):
        cache.begin_append(0, 65)
    with pytest.raises(
        ValueError, match=r"write takes an array \[2, 2, 3, positions, 4\] of float16 in C order"
    ):
        cache.write(0, numbered(3)[:1])
    with pytest.raises(ValueError, match=r"not .* of float32"):
        cache.write(0, numbered(3).astype(np.float32))
    assert (cache.num_rows, cache.nbytes) == (2, 0)


def test_what_is_read_can_be_written_elsewhere() -> None:
    """Sinks and the newest positions of a ring that wrapped, each where they are now."""
    cache = make_cache(64, sinks=3)
    cache.resize(2)
    values = numbered(100)
    for position in range(100):
        cache.write(0, np.ascontiguousarray(values[:, :, :, position : position + 1]))
    assert cache.oldest(0) == 39
    np.testing.assert_array_equal(cache.read(0, 0, 3), values[:, :, :, :3])
    np.testing.assert_array_equal(cache.read(0, 39, 100), values[:, :, :, 39:])
    with pytest.raises(IndexError, match="read positions 2 to 40: 3 was evicted; the row holds 39 to 100"):
        cache.read(0, 2, 40)
    cache.write(1, cache.read(0, 50, 90))
    np.testing.assert_array_equal(cache.read(1, 0, 40), values[:, :, :, 50:90])


def test_a_row_that_started_again_has_nothing_in_common_with_its_fork() -> None:
    cache = make_cache(8)
    values = numbered(10)
    first, second = (np.ascontiguousarray(part) for part in (values[:, :, :, :5], values[:, :, :, 5:]))
    cache.resize(3)
    cache.write(0, first)
    cache.fork(0, [1, 2], 5)
    cache.restart(1)
    cache.write(1, second)
    cache.fork(1, [2], 5)
    cache.fork(0, [1], 5)
    np.testing.assert_array_equal(cache.read(2, 0, 5), second)
    np.testing.assert_array_equal(cache.read(1, 0, 5), first)


@pytest.mark.skipif(sys.platform != "linux" or EMULATED, reason="reads /proc of this system")
@pytest.mark.parametrize("forked", [False, True])
def test_a_released_row_gives_its_memory_back(forked: bool) -> None:
    """Of a fork too, whose beginning stays with the other row."""
    cache = KvCache(num_layers=4, num_heads=4, head_dim=64, dtype="float16", window=2048)
    cache.resize(2)
    values = np.ones((4, 2, 4, 2000, 64), np.float16)
    cache.write(0, values)
    if forked:
        cache.fork(0, [1], 2000)
    cache.write(1, np.ascontiguousarray(values[:, :, :, : cache.max_append(1)]))
    addresses = [cache.buffer(3, side).ctypes.data for side in ("key", "value")]
    before = proportional_bytes()
    cache.release_row(1)
    written = 48 if forked else 2000
    # Pages at both ends of the row's buffers, and of its heads, may stay.
    assert before - proportional_bytes() > 0.9 * written * cache.bytes_per_position - 2**18
    assert [cache.buffer(3, side).ctypes.data for side in ("key", "value")] == addresses
    assert cache.next_position(1) == 0 and not cache.buffer(3, "value")[1].any()
    np.testing.assert_array_equal(cache.read(0, 0, 2000), values)
    cache.write(1, values)
    cache.release_row(0)
    np.testing.assert_array_equal(cache.read(1, 0, 2000), values)


def test_rows_that_begin_alike_share_no_more_than_that() -> None:
    """Growing lays out a pair with 60 positions in common, one that has 40 with them, and one that has none."""
    cache = KvCache(num_layers=1, num_heads=2, head_dim=64, dtype="float16", window=128, min_capacity=128)

    def fill(row: int, count: int, number: int) -> None:
        cache.write(row, np.full((1, 2, 2, count, 64), number, np.float16))

    cache.resize(4)
    fill(0, 40, 1)
    fill(3, 40, 2)
    cache.fork(0, [1], 40)
    for row, number in ((0, 3), (1, 4), (3, 5)):
        fill(row, 20, number)
    cache.fork(0, [2], 60)
    cache.resize(9)
    for row, (first, then) in enumerate([(1, 3), (1, 4), (1, 3), (2, 5)]):
        held = cache.read(row, 0, 60)
        assert (held[:, :, :, :40] == first).all() and (held[:, :, :, 40:] == then).all()


@pytest.mark.skipif(sys.platform != "linux" or EMULATED, reason="reads /proc; an emulator keeps no limit")
def test_a_cache_that_runs_out_of_memory_is_empty_and_goes_on() -> None:
    """The first buffers have their new layout by then, and the others cannot have it."""
    import resource

    window = 2**16  # 64 MiB of addresses per buffer and row, of which next to nothing is written
    cache = KvCache(num_layers=4, num_heads=4, head_dim=64, dtype="float32", window=window)
    cache.resize(1)
    cache.begin_append(0, 3)
    cache.reserve(window)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, limits[1]))
    try:
        with pytest.raises(MemoryError):
            cache.resize(2)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert (cache.num_rows, cache.capacity, cache.nbytes) == (0, 0, 0)
    cache.resize(2)
    assert cache.begin_append(1, 1) == 1


def proportional_bytes() -> int:
    """This process's memory, shared pages counted once (Pss of all mappings)."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return 1024 * int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="rows share pages on Linux only")
def test_beams_take_the_memory_of_their_prompt_once() -> None:
    cache = KvCache(num_layers=4, num_heads=4, head_dim=64, dtype="float16", window=2048, min_capacity=1024)
    empty = proportional_bytes()
    prompt, new, beams = 1000, 16, 32
    cache.resize(1)
    cache.write(0, np.ones((4, 2, 4, prompt, 64), np.float16))
    before = proportional_bytes()
    cache.resize(beams)
    cache.fork(0, list(range(1, beams)), prompt)
    for _ in range(new):
        for row in range(beams):
            cache.write(row, np.full((4, 2, 4, 1, 64), row, np.float16))
    for row in range(beams // 2):  # the better half takes the others' places
        cache.fork(row, [row + beams // 2], prompt + new)
    grown = proportional_bytes() - before
    # Each row has private pages where it wrote, in each layer, side and head, and shares the others. The positions are
    # whole tiles: one that is partly overwritten is copied whole. 1 MiB for everything else.
    position, page = 64 * 2, mmap.PAGESIZE  # bytes
    pages = -(-cache.capacity * position // page) - (prompt // 32 * 32) * position // page
    private = beams * 4 * 2 * 4 * pages * page
    assert grown < private + 2**20
    assert private < cache.bytes_per_position * prompt * beams / 4  # far below what copies would take
    for row in range(beams):
        assert (cache.read(row, prompt - 20, prompt) == 1).all()
        assert (cache.read(row, prompt, prompt + new) == row % (beams // 2)).all()
    cache.clear()
    assert proportional_bytes() - empty < 2**20  # the system has all of it back
