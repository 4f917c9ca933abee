"""A slow twin of beam search in plain Python: lists of hypotheses, float32 sums, no arrays that are moved about.

Bookkeeping after _beam_search of Hugging Face transformers 4.57 (generation/utils.py), with the core's tie rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FAR_BELOW = np.float32(-1e9)


@dataclass
class Hypothesis:
    tokens: list[int]
    score: np.float32
    finished: bool = False


@dataclass
class BeamTwin:
    """One prompt. `log_probs(tokens)` gives the processed log-probabilities [vocab_size] after prompt + tokens."""

    log_probs: Callable[[list[int]], NDArray[np.float32]]
    num_beams: int
    max_new_tokens: int
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    ends: Sequence[int] = ()
    pool: list[Hypothesis] = field(default_factory=list)

    def run(self) -> list[Hypothesis]:
        beams = [Hypothesis([], np.float32(0 if i == 0 else FAR_BELOW)) for i in range(self.num_beams)]
        self.pool = [Hypothesis([], FAR_BELOW) for _ in range(self.num_beams)]
        improvable = True
        while True:
            candidates = self.best_candidates(beams)
            hits = [c.tokens[-1] in self.ends or len(c.tokens) >= self.max_new_tokens for c in candidates]
            self.update_pool(candidates, hits, improvable)
            kept = [
                Hypothesis(c.tokens, c.score + FAR_BELOW if hit else c.score)
                for c, hit in zip(candidates, hits, strict=True)
            ]
            beams = sorted(kept, key=lambda beam: -beam.score)[: self.num_beams]  # sorted() is stable
            improvable = improvable and self.can_improve(beams[0])
            full = all(entry.finished for entry in self.pool)
            if not improvable or all(hits) or (self.early_stopping is True and full):
                return self.pool

    def best_candidates(self, beams: list[Hypothesis]) -> list[Hypothesis]:
        count = max(2, 1 + len(self.ends)) * self.num_beams
        every = [
            Hypothesis([*beam.tokens, token], beam.score + score)
            for beam in beams
            for token, score in enumerate(self.log_probs(beam.tokens))
        ]
        return sorted(every, key=lambda candidate: -candidate.score)[:count]

    def divisor(self, length: int) -> np.float32:
        return np.float32(float(length) ** self.length_penalty)

    def update_pool(self, candidates: list[Hypothesis], hits: list[bool], improvable: bool) -> None:
        entries = list(self.pool)
        for place, (candidate, hit) in enumerate(zip(candidates, hits, strict=True)):
            finished = hit and place < self.num_beams
            score = candidate.score / self.divisor(len(candidate.tokens))
            if not improvable:
                score += FAR_BELOW
            if not finished:
                score += FAR_BELOW
            entries.append(Hypothesis(candidate.tokens, score, finished))
        self.pool = sorted(entries, key=lambda entry: -entry.score)[: self.num_beams]

    def can_improve(self, best: Hypothesis) -> bool:
        length = self.max_new_tokens if self.measures_the_longest() else len(best.tokens)
        possible = best.score / self.divisor(length)
        worst = min(entry.score for entry in self.pool)
        return any(possible > (worst if entry.finished else FAR_BELOW) for entry in self.pool)

    def measures_the_longest(self) -> bool:
        """Whether the best that can come is measured at the longest length, not at that of now."""
        return self.early_stopping == "never" and self.length_penalty > 0
