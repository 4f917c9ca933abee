"""What is drawn, against exact probabilities: chi-square for single draws, enumeration for beam sampling."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from sabiyarn_edge import _core
from tests.core.selection import twins_scores as twins

# 99.99th percentiles of chi-square, by degrees of freedom (a fixed seed makes the outcome certain, not likely).
CHI_SQUARE_9999 = {4: 23.51, 5: 25.74, 11: 37.37}


def chi_square(counts, expected):
    return float(sum((counts[key] - share) ** 2 / share for key, share in expected.items()))


@pytest.mark.parametrize(
    ("options", "processed"),
    [
        ({"top_k": 0}, lambda s: s),
        ({"top_k": 0, "temperature": 0.7}, lambda s: s / np.float32(0.7)),
        ({"top_k": 5}, lambda s: twins.top_k(s, 5)),
        (
            {"top_k": 6, "temperature": 1.5, "top_p": 0.95},
            lambda s: twins.top_p(twins.top_k(s / np.float32(1.5), 6), 0.95),
        ),
    ],
    ids=["plain", "temperature", "top_k", "all"],
)
def test_draws_follow_the_processed_distribution(options, processed):
    scores = np.array([0.5, 2.0, -1.0, 1.0, 1.0, 0.0, -0.5, 1.5, -2.0, 0.25, 0.75, -0.25], np.float32)
    draws = 6000
    state = _core.DecodeState(
        _core.DecodeOptions(
            max_new_tokens=1, do_sample=True, num_return_sequences=draws, seeds=range(draws), **options
        ),
        len(scores),
        [[0]],
    )
    state.advance(scores.copy()[None])
    counts = Counter(token for _, token, _ in state.last_tokens())
    probabilities = twins.probabilities(processed(scores))
    expected = {i: draws * p for i, p in enumerate(probabilities) if p > 0}
    assert set(counts) <= set(expected)
    assert chi_square(counts, expected) < CHI_SQUARE_9999[len(expected) - 1]


@pytest.mark.parametrize("vocab_size", [40, 1500], ids=["one-block", "several-blocks"])
def test_a_draw_is_where_the_cumulative_probability_passes_the_uniform_number(vocab_size):
    from sabiyarn_edge._core_testing import uniform

    rng = np.random.default_rng(9)
    for seed in range(300):
        scores = rng.normal(0, 3, vocab_size).astype(np.float32)
        options = _core.DecodeOptions(
            max_new_tokens=1, do_sample=True, top_k=0, seeds=[seed, 2**64 - 1 - seed], num_return_sequences=2
        )
        state = _core.DecodeState(options, vocab_size, [[0]])
        state.advance(scores.copy()[None])
        cumulative = np.cumsum(twins.probabilities(scores))
        expected = [
            int(np.searchsorted(cumulative, uniform(own, 0, 0), side="right"))
            for own in (seed, 2**64 - 1 - seed)
        ]
        assert [token for _, token, _ in state.last_tokens()] == expected


def test_golden_tokens():
    """The same on every platform: made by this code on x86-64."""
    scores = ((np.arange(500) ** 2 * 37 % 129 - 64) / 16).astype(np.float32)
    options = _core.DecodeOptions(
        max_new_tokens=12,
        do_sample=True,
        temperature=0.8,
        top_k=50,
        top_p=0.9,
        repetition_penalty=1.2,
        seeds=7,
    )
    state = _core.DecodeState(options, len(scores), [[3, 1, 4]])
    while not state.finished:
        state.advance(scores.copy()[None])
    assert state.sequences() == [[3, 1, 4, 370, 413, 17, 112, 499, 171, 240, 232, 474, 18, 498, 433]]


def exact_first_beams(log_probs, num_beams, candidates):
    """P(set of the running beams after one step), by enumerating all ordered draws without replacement."""
    p = twins.probabilities(log_probs)
    result: Counter = Counter()
    for order in itertools.permutations(range(len(p)), candidates):
        probability, left = 1.0, 1.0
        for token in order:
            probability *= p[token] / left
            left -= p[token]
        best = sorted(order, key=lambda token: (-log_probs[token], order.index(token)))[:num_beams]
        result[frozenset(best)] += probability
    return result


def test_beam_sampling_marginals_equal_enumeration():
    """Two beams keep the better two of four tokens drawn without replacement; six tokens have fifteen such pairs."""
    scores = np.array([0.3, 1.2, -0.4, 0.9, 0.0, -1.0], np.float32)
    log_probs = twins.log_softmax(scores)
    exact = exact_first_beams(log_probs, num_beams=2, candidates=4)
    runs = 8000
    counts: Counter = Counter()
    for seed in range(runs):
        options = _core.DecodeOptions(max_new_tokens=3, do_sample=True, num_beams=2, top_k=0, seeds=seed)
        state = _core.DecodeState(options, len(scores), [[0]])
        state.advance(scores.copy()[None])
        counts[frozenset(state.next_tokens.tolist())] += 1
    common = {pair: runs * p for pair, p in exact.items() if runs * p >= 5}
    rest = runs * sum(p for pair, p in exact.items() if pair not in common)
    assert sum(counts[pair] for pair in exact if pair not in common) <= rest + 5 * max(1.0, rest) ** 0.5
    statistic = chi_square(counts, common)
    assert statistic < len(common) + 4.5 * (2 * len(common)) ** 0.5, (statistic, len(common))


@pytest.mark.parametrize(("ends", "kept"), [([], 2), ([5], 2), ([4, 5, 6], 4)], ids=["none", "one", "three"])
@pytest.mark.parametrize("option", [{"top_k": 1}, {"top_k": 0, "top_p": 1e-6}], ids=["top_k", "top_p"])
def test_beams_draw_from_a_token_more_than_there_are_end_tokens(option, ends, kept):
    """transformers' min_tokens_to_keep: with one token each, beams could not go on once it is an end token."""
    options = _core.DecodeOptions(
        max_new_tokens=3, do_sample=True, num_beams=2, eos_token_id=ends, seeds=1, **option
    )
    state = _core.DecodeState(options, 8, [[0]])
    logits = -np.arange(8, dtype=np.float32)[None]
    state.process(logits)
    state.propose(logits)
    # Each beam's: those of the second have no chance at the first step, and follow.
    assert sorted(token for _, token in state.candidates()) == sorted([*range(kept)] * 2)


def test_beam_candidates_are_drawn_in_order_without_replacement():
    """The first candidate drawn has the plain distribution, and no candidate comes twice."""
    scores = np.array([0.3, 1.2, -0.4, 0.9, 0.0, -1.0], np.float32)
    first: Counter = Counter()
    runs = 6000
    for seed in range(runs):
        options = _core.DecodeOptions(max_new_tokens=3, do_sample=True, num_beams=2, top_k=0, seeds=seed)
        state = _core.DecodeState(options, len(scores), [[0]])
        logits = scores.copy()[None]
        state.process(logits)
        state.propose(logits)
        tokens = [token for _, token in state.candidates()]
        assert len(set(tokens)) == len(tokens) == 4
        first[tokens[0]] += 1
    expected = {i: runs * p for i, p in enumerate(twins.probabilities(scores))}
    assert chi_square(first, expected) < CHI_SQUARE_9999[5]


def test_beam_sampling_weighs_tokens_of_all_beams_by_their_running_scores():
    """Second step: the first draw follows softmax(running score + log-probability) over beams and tokens."""
    first = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    second = np.log(np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.1, 0.7]], np.float32))
    counts: Counter = Counter()
    expected: Counter = Counter()
    runs = 6000
    for seed in range(runs):
        options = _core.DecodeOptions(max_new_tokens=5, do_sample=True, num_beams=2, top_k=0, seeds=seed)
        state = _core.DecodeState(options, 4, [[0]])
        state.advance(first.copy()[None])
        running = first[state.next_tokens]
        # Which tokens lead the beams is chance: sum the exact probabilities of what each run can draw.
        weights = np.exp(running[:, None] + second)
        for (row, token), weight in np.ndenumerate(weights / weights.sum()):
            expected[(int(row), int(token))] += float(weight)
        logits = second.copy()
        state.process(logits)
        state.propose(logits)
        counts[state.candidates()[0]] += 1
    assert chi_square(counts, expected) < 29.88  # 99.99th percentile, 7 degrees of freedom


def test_beam_sampling_with_fewer_possible_tokens_than_candidates():
    """top_k=2 leaves two tokens: the other candidates are the copies of them 1e9 below, as in the reference."""
    options = _core.DecodeOptions(max_new_tokens=2, do_sample=True, num_beams=3, top_k=2, seeds=1)
    state = _core.DecodeState(options, 6, [[0]])
    logits = np.arange(6, dtype=np.float32)[None]
    state.process(logits)
    state.propose(logits)
    tokens = [token for _, token in state.candidates()]
    assert len(tokens) == 6
    assert set(tokens[:2]) == {4, 5}
    assert set(tokens[2:]) <= {4, 5}
    state.commit()
    assert set(state.next_tokens.tolist()[:2]) == {4, 5}
