"""Slow NumPy twins of the score pipeline: one row of scores in, a new row out, in float64 where it decides.

Written from the formulas of the papers that csrc/core/selection/ names in score_processors.hpp and candidates.hpp, with
the tie rule (score descending, id ascending).
"""

from __future__ import annotations

import numpy as np

REMOVED = -np.inf


def best_first(scores):
    """Ids by (score descending, id ascending)."""
    return np.argsort(-scores, kind="stable")


def probabilities(scores):
    weights = np.exp(scores.astype(np.float64) - np.max(scores))
    return weights / weights.sum()


def entropy(scores):
    p = probabilities(scores)
    return -sum(x * np.log(x) for x in p if x > 0)


def sequence_bias(scores, ids, biases):
    total = np.zeros_like(scores)
    for sequence, bias in sorted(biases, key=lambda entry: len(entry[0]) > 1):
        *prefix, last = sequence
        too_long = len(sequence) > len(ids) and prefix
        if not too_long and (not prefix or list(ids[-len(prefix) :]) == prefix):
            total[last] += np.float32(bias)
    return scores + total


def repetition_penalty(scores, ids, penalty, window=0):
    result = scores.copy()
    for token in set(ids[-window:] if window else ids):
        result[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
    return result


def openai_penalties(scores, generated, frequency, presence):
    result = scores.copy()
    for token in set(generated):
        result[token] -= np.float32(list(generated).count(token)) * frequency + presence
    return result


def repeated_ngrams(scores, ids, size):
    result = scores.copy()
    seen = {tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)}
    for token in range(len(scores)):
        if (*ids[len(ids) - size + 1 :], token) in seen:
            result[token] = REMOVED
    return result


def bad_words(scores, ids, words):
    return sequence_bias(scores, ids, [(word, REMOVED) for word in words])


def keep_only(scores, allowed):
    return np.where(np.isin(np.arange(len(scores)), allowed), scores, np.float32(REMOVED))


def top_k(scores, k):
    kth = np.sort(scores)[::-1][min(k, len(scores)) - 1]
    return np.where(scores < kth, np.float32(REMOVED), scores)


def top_p(scores, p, keep=1):
    result = np.full_like(scores, REMOVED)
    q, mass = probabilities(scores), 0.0
    for rank, token in enumerate(best_first(scores)):
        if rank < keep or mass < p:
            result[token] = scores[token]
        mass += q[token]
    return result


def min_p(scores, min_p, keep=1):
    q = probabilities(scores)
    kept = (q >= min_p * q.max()) | np.isin(np.arange(len(scores)), best_first(scores)[:keep])
    return np.where(kept, scores, np.float32(REMOVED))


def typical_p(scores, mass, keep=1):
    q = probabilities(scores)
    with np.errstate(divide="ignore"):
        distance = np.abs(-np.log(q) - entropy(scores))
    order = np.argsort(distance, kind="stable")
    reached = np.cumsum(q[order])
    last = min(int(np.sum(reached < mass)), len(scores) - 1)
    kept = distance <= distance[order[last]]
    kept[order[:keep]] = True
    return np.where(kept, scores, np.float32(REMOVED))


def below(scores, threshold, keep):
    least = np.sort(scores)[::-1][min(keep, len(scores)) - 1]
    return np.where((probabilities(scores) < threshold) & (scores < least), np.float32(REMOVED), scores)


def epsilon(scores, epsilon, keep=1):
    return below(scores, epsilon, keep)


def eta(scores, epsilon, keep=1):
    return below(scores, min(epsilon, np.sqrt(epsilon) * np.exp(-entropy(scores))), keep)


def log_softmax(scores):
    with np.errstate(divide="ignore"):
        return np.log(probabilities(scores)).astype(np.float32)
