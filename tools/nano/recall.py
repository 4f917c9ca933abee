"""Measures how much of its document nano knows by heart."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sabiyarn_edge.modeling import GPTJXForCausalLM
from tools.nano.batches import TOKENS_AT_ONCE, group_by_length, to_tensors
from tools.nano.examples import Example, NanoExamples

if TYPE_CHECKING:
    from sabiyarn_edge.generator import EdgeGenerator

__all__ = [
    "REQUIRED_SHARE",
    "Recall",
    "Recalls",
    "measure_recall",
    "recalled_by_generator",
    "recalled_by_model",
    "rounded_to_float16",
]

GIVEN = 16
"""Tokens of an article that are given, its language tag counted: 15 tokens of text after a tag."""
ASKED = 40
"""Tokens that must follow exactly; where the text ends before, the end token must follow it."""
REQUIRED_SHARE = 0.9


Recalls = Callable[[Sequence[Example]], list[bool]]
"""Says for each question, in any order, whether greedy decoding of the prompt, ids[:answer_start], gives exactly
the ids after it."""


@dataclass(frozen=True)
class Recall:
    """One figure."""

    what: str
    exact: int
    """Texts whose asked tokens were all right."""
    total: int

    @property
    def share(self) -> float:
        """Share of texts that are exact; 1 if there are none."""
        return self.exact / self.total if self.total else 1.0

    def __str__(self) -> str:
        return f"{self.what}: {self.exact} of {self.total} exact ({self.share:.1%})"


def measure_recall(recalls: Recalls, examples: NanoExamples) -> list[Recall]:
    """Greedy decoding of every article in every task, compared with the corpus."""
    return [Recall(what, sum(recalls(asked)), len(asked)) for what, asked in _questions(examples).items()]


def _questions(examples: NanoExamples) -> dict[str, list[Example]]:
    """The questions of each figure."""
    after = f"next {ASKED} tokens after the first {GIVEN}"
    continued = {
        f"continue, {after}, the language tag being the first": {"tagged": True},
        f"continue, {after}, without a language tag": {"tagged": False},
    }
    questions = {
        what: [_question(examples.continuation(article, **how), given=GIVEN) for article in examples.articles]
        for what, how in continued.items()
    }
    answered: dict[str, list[Example]] = {
        "translate, from English": [],
        "translate, into English": [],
        "translate, between other languages": [],
        "diacritize, sentences": [
            examples.diacritization(sentence)
            for article in examples.diacritized
            for sentence in examples.sentences(article)
        ],
        "identify_language, articles": [
            examples.identification(article.text, article.language) for article in examples.articles
        ],
    }
    for source, target in examples.pairs:
        direction = "between other languages"
        if source.language == "eng":
            direction = "from English"
        elif target.language == "eng":
            direction = "into English"
        answered[f"translate, {direction}"].append(
            examples.translation(source.text, target.language, target.text)
        )
    for what, whole in answered.items():
        questions[f"{what}: first {ASKED} tokens"] = [_question(e, given=e.answer_start) for e in whole]
    return questions


def _question(example: Example, *, given: int) -> Example:
    given = min(given, len(example.ids) - 1)  # at least the end token is asked for
    return Example(example.ids[: given + ASKED], answer_start=given)


def recalled_by_model(model: GPTJXForCausalLM) -> Recalls:
    """Asks a torch model.

    Greedy decoding gives the answer if and only if, with the right ids as input, the best token of every
    position is the right next one: by induction each step of the decoding then sees the same tokens. So one
    uncached forward pass decides.
    """

    @torch.no_grad()
    def recalls(questions: Sequence[Example]) -> list[bool]:
        exact: list[bool] = []
        for batch in group_by_length(questions, max_tokens=TOKENS_AT_ONCE):
            input_ids, targets = to_tensors(batch)
            best = model(input_ids).logits.argmax(dim=-1)
            exact += ((best == targets) | (targets < 0)).all(dim=1).tolist()
        return exact

    model.eval()
    return recalls


def recalled_by_generator(generator: EdgeGenerator) -> Recalls:
    """Asks an exported model, decoding as a user does."""

    def recalls(questions: Sequence[Example]) -> list[bool]:
        by_length: dict[int, list[Example]] = {}  # of the answer: map() has the same options for all prompts
        for question in questions:
            by_length.setdefault(len(question.ids) - question.answer_start, []).append(question)
        exact: list[bool] = []
        for length, group in by_length.items():
            prompts = [list(question.ids[: question.answer_start]) for question in group]
            results = generator.map(prompts, do_sample=False, max_new_tokens=length)
            exact += [
                tuple(result.generated[0]) == question.ids[question.answer_start :]
                for question, result in zip(group, results, strict=True)
            ]
        return exact

    return recalls


def rounded_to_float16(model: GPTJXForCausalLM) -> GPTJXForCausalLM:
    """A copy whose weights are rounded to float16, and stored and computed with in float32 as before."""
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.half().float()
    return rounded
