"""look_up against a twin that tries every place."""

from __future__ import annotations

import random

import pytest

from sabiyarn_edge._core import look_up


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
