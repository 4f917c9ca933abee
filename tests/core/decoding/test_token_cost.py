"""TokenCost finds what one more token costs from runs whose times are known."""

from __future__ import annotations

import random

import pytest

from sabiyarn_edge._core_testing import TokenCost


def seconds(cost: float, rows: int, more: int) -> float:
    return 0.01 * (1 + cost * (rows - 1 + more))


def test_before_any_run_it_is_a_quarter() -> None:
    cost = TokenCost()
    assert cost.price(1) == 0.25
    assert cost.price(4) == pytest.approx(0.25 * 4 / 1.75)  # four tokens in the time of 1.75 runs


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("true_cost", [0.03, 0.12, 0.3, 0.8])
def test_the_cost_is_found_though_runs_are_disturbed(true_cost: float, rows: int) -> None:
    rng, cost = random.Random(1), TokenCost()
    found = []
    for step in range(400):
        more = rng.choice([0, 0, 1, 2, 4])
        disturbed = rng.choice([2.0, 10.0]) if rng.random() < 0.1 else rng.uniform(0.99, 1.01)
        cost.note(rows, more, seconds(true_cost, rows, more) * disturbed)
        if step >= 200:
            found.append(cost.price(rows))
    expected = true_cost * rows / (1 + true_cost * (rows - 1))
    # Steps of 5 % in the estimate, and in the time of a plain run, to which a small cost is the difference.
    assert sorted(found)[len(found) // 2] == pytest.approx(expected, rel=0.3, abs=0.06)


def test_nothing_is_learnt_before_a_plain_run_is_known() -> None:
    cost = TokenCost()
    for _ in range(20):
        cost.note(1, 4, 100.0)
    assert cost.price(1) == 0.25
    for _ in range(4):
        cost.note(2, 0, 0.01)
    cost.note(1, 4, 100.0)  # of another number of rows
    assert cost.price(1) == 0.25


def test_it_stays_between_a_64th_and_a_whole_run() -> None:
    for guessing, end in ((1.0, 1.0), (0.0, 1 / 64)):
        cost = TokenCost()
        for _ in range(5):
            cost.note(1, 0, 0.01)
        for _ in range(100):
            cost.note(1, 1, guessing)
        assert cost.price(1) == pytest.approx(end)
