"""Greedy and beam search under a constraint, token for token what transformers gives with prefix_allowed_tokens_fn.

transformers is told by a search through all tokens what may come next, and by a stopping criterion that a text at which
nothing may follow ends there.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge._core import DecodeOptions, DecodeState
from sabiyarn_edge.constraints.compiler import ConstraintCompiler
from sabiyarn_edge.constraints.constraint import Constraint
from sabiyarn_edge.constraints.rows import ConstrainedRows
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.constraints.brute_force import Language, Matches, Texts, allowed_tokens
from tests.constraints.vocabularies import byte_level
from tests.decoding.toy import TableModel

pytest.importorskip("transformers")

import torch
from transformers import StoppingCriteriaList

from tests.decoding.hf_toy import hf_generate

NO_SEQUENCE = -1e6
"""transformers fills up with scores of -1e9, divided by up to length ** 2, where it has no sequence to return."""
PATTERNS = ("(ab|b)*", "a{1,3}b?|bb", "[ab]+", "(aa|bbb)+a")


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)


class Case:
    """A random vocabulary over two letters, a language, and options."""

    def __init__(self, seed: int, *, beams: bool) -> None:
        rng = random.Random(seed)
        pieces = {
            "a",
            "b",
            *("".join(rng.choices("ab", k=rng.randint(2, 4))) for _ in range(rng.randint(0, 6))),
        }
        self.tokenizer: Tokenizer = byte_level([piece.encode() for piece in sorted(pieces)])
        self.vocab_size = self.tokenizer.vocab_size + rng.choice([0, 5])
        self.written = {t: self.tokenizer.token_bytes(t) for t in range(1, self.tokenizer.vocab_size)}
        longer = [t for t, written in self.written.items() if len(written) > 1]
        # An end token may also write text: the text that it completes must be of the language.
        self.ends = rng.choice([[0], [0], [0, *longer[:1]], []])
        self.language: Language
        if rng.random() < 0.5:
            texts = sorted(
                {"".join(rng.choices("ab", k=rng.randint(1, 5))) for _ in range(rng.randint(1, 6))}
            )
            if not self.ends:  # without an end token no choice may begin another
                texts = [t for t in texts if not any(o != t and o.startswith(t) for o in texts)]
            self.language, self.option = Texts.of(texts), {"choices": texts}
        else:
            pattern = rng.choice(PATTERNS)
            self.language, self.option = Matches(pattern.encode()), {"regex": pattern}
        self.options: dict[str, Any] = {
            "max_new_tokens": rng.randint(1, 9),
            "eos_token_id": self.ends or None,
        }
        if beams:
            num_beams = rng.randint(2, 5)
            self.options |= {
                "num_beams": num_beams,
                "num_return_sequences": rng.randint(1, num_beams),
                "early_stopping": rng.choice([True, False, "never"]),
                "length_penalty": rng.choice([-0.5, 0.0, 1.0, 2.0]),
            }
        if rng.random() < 0.3:
            self.options["repetition_penalty"] = 1.3
        self.prompts = [
            [rng.randrange(1, self.vocab_size) for _ in range(2)] for _ in range(rng.randint(1, 3))
        ]
        self.model = TableModel(seed, self.vocab_size)

    @property
    def constraint(self) -> Constraint:
        config = GenerationConfig(**self.option, eos_token_id=self.ends or None)
        found = ConstraintCompiler(self.tokenizer, self.vocab_size).constraint_of(config)
        assert found is not None
        return found

    def text(self, ids: Sequence[int]) -> bytes:
        return b"".join(self.written.get(token, b"") for token in ids[2:])

    def theirs(self) -> Any:
        def may_follow(_: int, ids: torch.Tensor) -> list[int]:
            text = self.text(ids.tolist())
            found = allowed_tokens(self.language, text, self.written) - set(self.ends)
            found |= {end for end in self.ends if self.language.has(text + self.written.get(end, b""))}
            return sorted(found) or [0]  # the row has ended

        def ended(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            texts = [self.text(row) for row in ids.tolist()]
            return torch.tensor(
                [self.language.has(t) and not allowed_tokens(self.language, t, self.written) for t in texts]
            )

        return hf_generate(
            self.model,
            self.prompts,
            prefix_allowed_tokens_fn=may_follow,
            stopping_criteria=StoppingCriteriaList([ended]),
            **self.options,
        )

    def ours(self) -> DecodeState:
        """Follows rows as a key-value cache does: by source and newest id."""
        state = DecodeState(DecodeOptions(**self.options), self.vocab_size, self.prompts)
        hooks = ConstrainedRows(self.constraint, self.ends, ()).hooks({})
        rows = [list(prompt) for prompt in self.prompts]
        while not state.finished:
            logits = np.stack([self.model.logits(row) for row in rows])
            hooks["before_scores"](state)
            state.process(logits)
            state.propose(logits)
            state.commit(hooks["after_choice"](state))
            rows = [
                [*rows[source], int(token)]
                for source, token in zip(state.row_sources, state.next_tokens, strict=True)
            ]
        return state


@pytest.mark.parametrize("block", range(2))
def test_greedy(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        case = Case(seed, beams=False)
        ours = case.ours()
        for mine, padded in zip(ours.sequences(), case.theirs().sequences.tolist(), strict=True):
            assert padded[: len(mine)] == mine, seed


@pytest.mark.parametrize("block", range(4))
def test_beams(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        case = Case(seed, beams=True)
        theirs, ours = case.theirs(), case.ours()
        scores = theirs.sequences_scores.tolist()
        rows = zip(ours.sequences(), theirs.sequences.tolist(), ours.sequences_scores(), scores, strict=True)
        for mine, padded, my_score, their_score in rows:
            if their_score > NO_SEQUENCE:
                assert padded[: len(mine)] == mine, seed
                assert my_score == pytest.approx(their_score, abs=1e-4, rel=1e-6), seed
            else:
                assert not my_score > NO_SEQUENCE, seed


@pytest.mark.parametrize("beams", [False, True], ids=["greedy", "beams"])
def test_an_output_is_of_the_language_or_cut(beams: bool) -> None:
    for seed in range(60):
        case = Case(seed, beams=beams)
        state = case.ours()
        for ids, reason in zip(state.sequences(), state.finish_reasons(), strict=True):
            text = case.text(ids)
            assert reason in ("eos", "stop", "length", ""), seed
            assert case.language.has(text) or reason in ("length", ""), seed  # "": there is no such sequence
            if reason == "stop":
                assert not allowed_tokens(case.language, text, case.written), seed
