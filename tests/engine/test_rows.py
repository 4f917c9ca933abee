"""Rows: whose memory a row has, after its text has ended."""

from __future__ import annotations

from sabiyarn_edge._core import KvCache
from sabiyarn_edge.engine.prefix_cache import PrefixCache
from sabiyarn_edge.engine.rows import Rows


class NotedCache:
    """A KV cache that notes which rows were released."""

    def __init__(self) -> None:
        self._cache = KvCache(num_layers=1, num_heads=1, head_dim=8, dtype="float32", window=256)
        self.released: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._cache, name)

    def release_row(self, row: int) -> None:
        self.released.append(row)
        self._cache.release_row(row)


def rows_of_two_texts() -> tuple[NotedCache, Rows]:
    cache = NotedCache()
    rows = Rows(cache, PrefixCache())  # type: ignore[arg-type]
    for tokens in ([1] * 40, [2] * 20):
        row = rows.begin(tokens)
        cache.begin_append(row.index, len(tokens))  # type: ignore[operator]
        row.tokens += tokens
    return cache, rows


def test_a_text_that_follows_at_once_takes_over_the_memory_of_one_that_ended() -> None:
    cache, rows = rows_of_two_texts()
    ended = rows.live[0]
    rows.end([ended], keep=False)
    row = rows.begin([3] * 10)
    assert (row.index, row.tokens, row.surplus, row.touched) == (ended.index, [], 40, 40)
    rows.release_free()
    assert cache.released == []


def test_else_it_is_given_back() -> None:
    cache, rows = rows_of_two_texts()
    ended = rows.live[0]
    rows.end([ended], keep=False)
    rows.release_free()
    rows.release_free()
    assert cache.released == [ended.index]
    row = rows.begin([3] * 10)
    assert (row.index, row.surplus, row.touched) == (ended.index, 0, 0)
