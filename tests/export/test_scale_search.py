"""Scales of 4-bit weights against a search in plain loops, and codes against the nearest entry."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge.export import scale_search
from sabiyarn_edge.export.block_quantization import BlockLayout
from sabiyarn_edge.export.scale_search import round_to_nearest_entries, round_to_searched, searched_scales
from sabiyarn_edge.export.table_quantization import TableBlocks, nearest_codes
from tests.export.models import TABLE, rounded_to_table

LAYOUT = BlockLayout(4, 32)


def weights(seed: int = 0, rows: int = 40, width: int = 96) -> np.ndarray:
    """Bell-shaped with heavy tails, as trained weights are."""
    return np.random.default_rng(seed).standard_t(5, size=(rows, width)).astype(np.float32)


def errors(values: np.ndarray, restored: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Sum of squares of each 16 weights."""
    square = (values.astype(np.float64) - restored) ** 2 * (1 if importance is None else importance)
    return square.reshape(len(values), -1, 16).sum(axis=-1)


def test_codes_are_those_of_the_nearest_entries() -> None:
    values = np.linspace(-40, 40, 4001, dtype=np.float32)
    for step in (np.float32(1), np.float32(-0.5)):
        found = np.array(TABLE)[nearest_codes(values, step)] * step
        nearest = np.array([min((step * entry for entry in TABLE), key=lambda v: abs(v - w)) for w in values])
        np.testing.assert_allclose(np.abs(values - found), np.abs(values - nearest), atol=1e-6)


def test_nearest_equals_the_twin() -> None:
    values = weights(7)
    np.testing.assert_allclose(
        round_to_nearest_entries(values, LAYOUT).restored(), rounded_to_table(values), rtol=1e-5, atol=1e-7
    )


def test_the_values_are_those_of_the_definition() -> None:
    made = round_to_searched(weights(3, rows=5), LAYOUT)
    for row, column in np.ndindex(made.codes.shape):
        scale = int(made.scales.subs[row, column // 16])
        entry = TABLE[made.codes[row, column]]
        expected = np.float32(made.scales.rows[row]) * np.float32(scale * entry)
        assert made.restored()[row, column] == expected


def test_searched_scales_lose_a_fifth_less_than_the_nearest() -> None:
    values = weights(width=384)
    searched = errors(values, round_to_searched(values, LAYOUT).restored()).sum()
    assert searched < 0.8 * errors(values, round_to_nearest_entries(values, LAYOUT).restored()).sum()


def test_comes_close_to_a_search_in_small_steps() -> None:
    """16 weights after another, 2000 scales of either sign in plain loops; ours are integers times the row's."""
    values = weights(3, rows=20, width=32)
    found = errors(values, round_to_searched(values, LAYOUT).restored())
    best = np.full(found.shape, np.inf)
    for row, group in np.ndindex(found.shape):
        block = values[row, 16 * group : 16 * group + 16].astype(np.float64)
        for scale in np.abs(block).max() * np.linspace(1 / 45, 1 / 14, 1000):
            for step in (scale, -scale):
                differences = np.abs(block[:, None] - step * np.array(TABLE)).min(axis=1)
                best[row, group] = min(best[row, group], (differences**2).sum())
    assert (best.sum() * 0.999 <= found.sum()) and found.sum() < 1.2 * best.sum()


def test_parts_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = weights(4)
    importance = np.random.default_rng(5).exponential(size=values.shape[1]).astype(np.float32)
    whole = searched_scales(values, importance)
    monkeypatch.setattr(scale_search, "ROWS_AT_ONCE", 17)
    parts = searched_scales(values, importance)
    np.testing.assert_array_equal(parts.rows, whole.rows)
    np.testing.assert_array_equal(parts.subs, whole.subs)


def test_important_columns_are_rounded_better() -> None:
    values = weights(1)
    importance = np.where(np.arange(96) % 8 == 0, 100, 1).astype(np.float32)
    plain, weighted = (round_to_searched(values, LAYOUT, counts).restored() for counts in (None, importance))
    assert errors(values, weighted, importance).sum() < 0.9 * errors(values, plain, importance).sum()
    assert errors(values, plain).sum() < errors(values, weighted).sum()


def test_scaled_weights_have_scaled_rows() -> None:
    """By powers of two, which float32 multiplies exactly."""
    values = weights(2)
    one, other = searched_scales(values), searched_scales(values * 64)
    np.testing.assert_array_equal(one.subs, other.subs)
    np.testing.assert_array_equal(one.rows * 64, other.rows)


@pytest.mark.parametrize("method", [round_to_nearest_entries, round_to_searched], ids=["nearest", "search"])
def test_zeros_are_exact(method: object) -> None:
    """No entry of the table is 0: 16 zeros have the scale 0."""
    values = weights(5, rows=3)
    values[0] = 0
    values[1, 16:48] = 0
    made = method(values, LAYOUT)  # type: ignore[operator]
    assert isinstance(made, TableBlocks)
    np.testing.assert_array_equal(made.restored()[values == 0], 0)
    assert np.isfinite(made.restored()).all()


def test_a_block_on_the_table_is_exact() -> None:
    """Of either sign: the longer side of the table is for the side that reaches further."""
    values = np.concatenate([np.array(TABLE), -np.array(TABLE)]).astype(np.float32)[None]
    made = round_to_searched(values, LAYOUT)
    np.testing.assert_allclose(made.restored(), values, rtol=1e-6)
    assert made.scales.subs.tolist() == [[127, -127]]
