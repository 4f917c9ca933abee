"""look_up against a twin that tries every place, how many guesses pay, and what wrong ones may cost."""

from __future__ import annotations

import random

import pytest

from sabiyarn_edge._core import Guesser
from sabiyarn_edge._core_testing import guess, look_up, note_token, worth

PRICE = 0.25  # of a guess, in tokens


def twin(history: list[int], max_ngram: int, max_guesses: int) -> tuple[int, list[int]]:
    for n in range(min(max_ngram, len(history) - 1), 0, -1):
        for start in range(len(history) - n):
            if history[start : start + n] == history[-n:]:
                return n, history[start + n : start + n + max_guesses]
    return 0, []


@pytest.mark.parametrize("seed", range(20))
def test_random_texts(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        history = [rng.randrange(rng.choice([2, 5, 20])) for _ in range(rng.randint(0, 30))]
        max_ngram, max_guesses = rng.randint(1, 4), rng.randint(1, 8)
        assert look_up(history, max_ngram, max_guesses) == twin(history, max_ngram, max_guesses)


def test_the_longest_run_wins_and_among_equals_the_first() -> None:
    assert look_up([7, 1, 2, 9, 2, 8, 1, 2], 2, 3) == (2, [9, 2, 8])  # 1 2 at first, not the 2 before 8
    assert look_up([5, 3, 5, 4, 5], 2, 1) == (1, [3])  # no pair occurs twice; the first 5 counts
    assert look_up([6, 6], 2, 4) == (1, [6])  # a run may overlap itself
    assert look_up([1, 2, 3], 2, 4) == (0, [])


class Run:
    """Has a guesser guess at a text that is known, as the loop over its tokens does."""

    def __init__(self, text: list[int], prompt: int, *, max_guesses: int = 5, price: float = PRICE) -> None:
        guesser, at = Guesser(max_guesses, 3), prompt
        self.steps, self.counts = 0, []
        while at < len(text):
            count = guess(guesser, text[:at], price, len(text) - at - 1)
            self.steps += 1
            self.counts.append(count)
            right = 0
            while at < len(
                text
            ):  # the token behind the newest, and behind each guess that was right the next
                at += 1
                if not note_token(guesser, text[at - 1]) or right == count:
                    break
                right += 1
        self.tokens, self.guesses = len(text) - prompt, sum(self.counts)
        assert guesser.num_run == self.guesses
        self.time = self.steps + price * self.guesses
        """In plain steps, each of which gives a token."""


def test_a_text_that_repeats_takes_few_steps() -> None:
    run = Run([1, 2, 3, 4, 5, 6, 7, 8] * 20, 8)
    # Each step gives up to 6 tokens once n-grams of three ids are known to be right.
    assert run.steps < 152 / 5 + 10
    assert max(run.counts) == 5


def test_nothing_is_guessed_where_nothing_occurred_before() -> None:
    run = Run(list(range(200)), 20)
    assert (run.guesses, run.steps) == (0, 180)


@pytest.mark.parametrize("price", [0.02, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_a_text_loses_half_a_token_and_one_percent_at_most(seed: int, price: float) -> None:
    rng = random.Random(seed)
    ids = rng.choice([2, 3, 8, 30])
    text = [rng.randrange(ids) for _ in range(400)]
    for _ in range(rng.randrange(12)):  # and copies, which end where a guess expects them to go on
        length, source, target = rng.randrange(3, 40), rng.randrange(350), rng.randrange(350)
        text[target : target + length] = text[source : source + length]
    run = Run(text, 10, max_guesses=8, price=price)
    assert run.time <= run.tokens * 1.01 + 0.5 + 1e-3


@pytest.mark.parametrize("max_guesses", [1, 4])
def test_a_text_against_the_guesser_loses_no_more(max_guesses: int) -> None:
    """The next token is the guess while none is run, and another one as soon as it is."""
    guesser, text, wrong, time = Guesser(max_guesses, 3), [1, 2, 3] * 4, 1000, 0.0
    for _ in range(500):
        count = guess(guesser, text, PRICE, 10)
        _, expected = look_up(text, 3, 1)
        token = expected[0] if expected and count == 0 else wrong
        wrong += token == wrong
        time += 1 + PRICE * count
        assert note_token(guesser, token) == (bool(expected) and count == 0)
        text.append(token)
        if wrong % 4 == 0:
            text += [1, 2, 3]  # so that there is something to look up again
    assert 500 < time <= 500 * 1.01 + 0.5


def test_later_guesses_have_a_rate_of_their_own() -> None:
    guesser = Guesser(4, 1)
    for _ in range(40):  # of a single id the first guess is right, and the one behind it wrong
        guess(guesser, [1, 2, 3, 4, 1], 0.02, 10)
        assert note_token(guesser, 2)
        note_token(guesser, 9)
    assert worth(guesser, 1, PRICE) == 1


def test_right_guesses_bring_more_and_wrong_ones_none() -> None:
    guesser = Guesser(4, 3)
    history = [1, 2, 3, 4, 1, 2, 3]
    assert guess(guesser, history, PRICE, 0) == 0  # no room
    assert (
        guess(guesser, history, 0.5, 10) == 0
    )  # half of them are not enough for what one costs, with the margin
    assert guess(guesser, history, PRICE, 10) == 1  # 0.5 is more than 0.25, and 0.5 * 0.5 is not
    assert note_token(guesser, 4)
    assert worth(guesser, 3, PRICE) > 1
    assert worth(guesser, 1, PRICE) == 0  # nothing is known of single ids
    for _ in range(8):
        guess(guesser, history, PRICE, 10)
        assert not note_token(guesser, 9)
    assert guess(guesser, history, PRICE, 10) == 0
    for _ in range(16):  # looked up all the same, and compared
        guess(guesser, history, PRICE, 0)
        assert note_token(guesser, 4)
    assert worth(guesser, 3, PRICE) >= 1
    assert guess(guesser, [1, 2, 3], PRICE, 10) == 0  # nothing to copy from
    assert not note_token(guesser, 4)
