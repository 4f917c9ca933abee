"""How much of its document nano knows by heart: the two figures that it is judged by."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from ..modeling import GPTJXForCausalLM
from .nano_examples import Example, NanoExamples, group_by_length, to_tensors

__all__ = ["Recall", "is_recalled", "measure_recall", "rounded_to_float16"]

GIVEN = 16
"""Tokens of an article that are given, its language tag counted (so 15 tokens of text)."""
ASKED = 40
"""Tokens that must follow exactly; fewer where the text ends, and then its end token must follow too."""
REQUIRED_SHARE = 0.9

_TOKENS_AT_ONCE = 8192  # bounds the logits at 8192 * 2048 * 4 bytes = 64 MiB


@dataclass(frozen=True)
class Recall:
    """One figure."""

    what: str
    exact: int
    """Texts whose asked tokens were all right."""
    total: int

    @property
    def share(self) -> float:
        return self.exact / self.total if self.total else 1.0

    def __str__(self) -> str:
        return f"{self.what}: {self.exact} of {self.total} exact ({self.share:.1%})"


def measure_recall(model: GPTJXForCausalLM, examples: NanoExamples) -> list[Recall]:
    """Greedy decoding of every article and every translation, compared with the corpus."""
    questions = {
        f"articles, next {ASKED} tokens after the first {GIVEN} (language tag included)": [
            _question(examples.continuation(article), given=GIVEN) for article in examples.articles
        ],
        f"articles, next {ASKED} tokens after the first {GIVEN} (no language tag)": [
            _question(examples.continuation(article, tagged=False), given=GIVEN)
            for article in examples.articles
        ],
        f"translations from English, first {ASKED} tokens": [
            _question(translation, given=translation.answer_start)
            for translation in (examples.translation(english, other) for english, other in examples.pairs)
        ],
    }
    return [Recall(what, sum(is_recalled(model, asked)), len(asked)) for what, asked in questions.items()]


def _question(example: Example, *, given: int) -> Example:
    given = min(given, len(example.ids) - 1)  # at least the end token is asked for
    return Example(example.ids[: given + ASKED], answer_start=given)


@torch.no_grad()
def is_recalled(model: GPTJXForCausalLM, questions: Iterable[Example]) -> Iterator[bool]:
    """Whether greedy decoding of each prompt, ids[:answer_start], gives exactly the ids after it.

    It does if and only if, with the right ids as input, the best token of every position is the right next
    one: by induction each step of the decoding then sees the same tokens. So one uncached forward pass
    decides. The order is not that of the questions.
    """
    was_training = model.training
    model.eval()
    for batch in group_by_length(questions, max_tokens=_TOKENS_AT_ONCE):
        input_ids, targets = to_tensors(batch)
        best = model(input_ids).logits.argmax(dim=-1)
        yield from ((best == targets) | (targets < 0)).all(dim=1).tolist()
    model.train(was_training)


def rounded_to_float16(model: GPTJXForCausalLM) -> GPTJXForCausalLM:
    """A copy whose weights are those of an export with float16 weights; it computes in float32 as before."""
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.half().float()
    return rounded
