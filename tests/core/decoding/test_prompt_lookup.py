"""look_up against a twin that tries every place, and how many guesses pay."""

from __future__ import annotations

import random

import pytest

from sabiyarn_edge._core import Guesser, look_up


def twin(history: list[int], max_ngram: int, max_guesses: int) -> list[int]:
    for n in range(min(max_ngram, len(history) - 1), 0, -1):
        for start in range(len(history) - n):
            if history[start : start + n] == history[-n:]:
                return history[start + n : start + n + max_guesses]
    return []


@pytest.mark.parametrize("seed", range(20))
def test_random_texts(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        history = [rng.randrange(rng.choice([2, 5, 20])) for _ in range(rng.randint(0, 30))]
        max_ngram, max_guesses = rng.randint(1, 4), rng.randint(1, 8)
        assert look_up(history, max_ngram, max_guesses) == twin(history, max_ngram, max_guesses)


def test_the_longest_run_wins_and_among_equals_the_first() -> None:
    assert look_up([7, 1, 2, 9, 2, 8, 1, 2], 2, 3) == [9, 2, 8]  # 1 2 at the beginning, not the 2 before 8
    assert look_up([5, 3, 5, 4, 5], 2, 1) == [3]  # no pair occurs twice; the first 5 counts
    assert look_up([6, 6], 2, 4) == [6]  # a run may overlap itself
    assert look_up([1, 2, 3], 2, 4) == []


COST = 0.25  # of one more token in a run, in runs of one token


def tokens_per_time(rate: float, guesses: int, rows: int) -> float:
    """Of a run in which one of the rows has guesses that are right at a rate: those behind a wrong one are lost."""
    gained = sum(rate**place for place in range(1, guesses + 1))
    return (rows + gained) / (1 + COST * (rows - 1 + guesses))


@pytest.mark.parametrize("rows", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("pattern", ["1", "1110", "10", "1000", "0"])
def test_guesses_are_run_where_they_make_a_run_give_more(rows: int, pattern: str) -> None:
    guesser = Guesser(8, 2)
    for _ in range(20):
        for right in pattern:
            guesser.note(right == "1")
        count = guesser.worth(rows)
        # The rate is not far from the pattern's: the last guesses count most, with weights (7/8)^n / 8.
        rate = sum(7**n / 8 ** (n + 1) * (pattern * 20)[-1 - n % len(pattern)].count("1") for n in range(60))
    without = tokens_per_time(rate, 0, rows)
    assert all(tokens_per_time(rate, more, rows) > without for more in range(1, count + 1))
    if count == 0:  # with the margin of a fifth that the estimate has to be better by
        assert tokens_per_time(rate / 1.2, 1, rows) <= without + 1e-6
    if pattern == "1" and rows == 1:
        assert count == 8
    if pattern == "0":
        assert count == 0


def test_three_wrong_guesses_at_the_beginning_end_them_and_right_ones_bring_them_back() -> None:
    guesser = Guesser(4, 2)
    history = [1, 2, 3, 1, 2]
    assert guesser.guess(history, 1, 10) == 1
    assert guesser.guess(history, 1, 0) == 0  # no room
    assert guesser.guess(history, 8, 10) == 0  # eight rows fill a run
    for _ in range(3):
        assert guesser.guess(history, 1, 10) == 1
        guesser.note(False)
    assert guesser.guess(history, 1, 10) == 0
    guesser.note(True)  # it was looked up all the same
    assert guesser.guess(history, 1, 10) == 1
    assert guesser.guess([1, 2, 3], 1, 10) == 0  # nothing to copy from
    assert guesser.num_run == 5
