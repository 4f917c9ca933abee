"""Draws the line between prompts that nano can know and others: the mean log-probability of a prompt's tokens."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sabiyarn_edge.modeling import GPTJXForCausalLM
from tools.nano.batches import TOKENS_AT_ONCE, group_by_length, to_tensors
from tools.nano.examples import Example, NanoExamples, without_marks

__all__ = ["Familiarity", "mean_log_probs", "measure_familiarity", "unknown_sentences"]

EPOCHS = 2
"""Epochs whose prompts stand for those that nano can know."""
CONTINUED = (3, 24)
"""Fewest and most tokens that are given of an article to continue."""
SENTENCES = 200
"""Random sentences in each language."""
TAIL = 0.01
"""Share of the known and of the unknown prompts that may lie on the other's side; the line is half way between."""


_PARTS = {
    "eng": (
        ("My uncle", "The driver", "Our teacher", "A small dog", "The old woman", "Nobody", "Her friend"),
        ("bought two yams", "cooked rice", "lost the keys", "is watching football", "went to Lagos", "sang loudly"),
        ("in the kitchen", "near the river", "after the rain", "at the market", "with a smile", "by bus"),
        ("yesterday.", "last week.", "this morning!", "on Sunday.", "again?", "before the party."),
    ),
    "yor": (
        ("Adé", "Ìyá mi", "Olùkọ́ wa", "Ajá kékeré náà", "Awakọ̀ yẹn", "Ọ̀rẹ́ rẹ̀", "Bàbá àgbà"),
        ("ra iṣu méjì", "se ìrẹsì", "sọ kọ́kọ́rọ́ nù", "ń wo bọ́ọ̀lù", "lọ sí Ìbàdàn", "kọrin sókè"),
        ("ní ọjà", "nítòsí odò", "lẹ́yìn òjò", "nínú ilé ìdáná", "pẹ̀lú ẹ̀rín", "ní òwúrọ̀"),
        ("lánàá.", "ní ọ̀sẹ̀ tó kọjá.", "lónìí!", "ní ọjọ́ ìsinmi.", "ṣé òótọ́ ni?", "kí oúnjẹ tó jinná."),
    ),
}  # fmt: skip
"""Language -> beginnings, middles and ends of everyday sentences, which the document does not hold."""


@dataclass(frozen=True)
class Familiarity:
    """The line, and what lies on its wrong sides."""

    least_log_prob: float
    """Mean log-probability of a prompt's tokens but the first, nats, from which on the prompt counts as known."""
    false_alarms: int
    """Known prompts below it."""
    known: int
    """All known prompts."""
    hits: int
    """Unknown prompts below it."""
    unknown: int
    """All unknown prompts."""

    def __str__(self) -> str:
        return (
            f"prompts below {self.least_log_prob} nats a token count as unknown: {self.hits} of {self.unknown} random "
            f"sentences, {self.false_alarms} of {self.known} of the document"
        )


def measure_familiarity(model: GPTJXForCausalLM, examples: NanoExamples) -> Familiarity:
    """Score prompts of the document and prompts with random sentences, and draw the line between the two."""
    rng = random.Random(0)
    known = mean_log_probs(model, list(_known_prompts(examples, rng)))
    unknown = mean_log_probs(model, list(_unknown_prompts(examples, rng)))
    line = round(float(np.quantile(known, TAIL) + np.quantile(unknown, 1 - TAIL)) / 2, 2)
    return Familiarity(line, int((known < line).sum()), len(known), int((unknown < line).sum()), len(unknown))


@torch.no_grad()
def mean_log_probs(model: GPTJXForCausalLM, prompts: Sequence[tuple[int, ...]]) -> np.ndarray:
    """[len(prompts)] float64: the mean log-probability of each prompt's tokens but the first, in any order, nats."""
    means: list[float] = []
    model.eval()
    whole = [Example(ids, answer_start=1) for ids in prompts]
    for batch in group_by_length(whole, max_tokens=TOKENS_AT_ONCE):
        input_ids, targets = to_tensors(batch)
        log_probs = model(input_ids).logits.log_softmax(dim=-1)
        chosen = log_probs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        counted = targets >= 0
        means += ((chosen * counted).sum(dim=1) / counted.sum(dim=1)).tolist()
    return np.array(means)


def unknown_sentences(language: str, rng: random.Random) -> list[str]:
    """Random sentences in English or Yoruba."""
    every = [" ".join(parts) for parts in itertools.product(*_PARTS[language])]
    return rng.sample(every, SENTENCES)


def _known_prompts(examples: NanoExamples, rng: random.Random) -> Iterator[tuple[int, ...]]:
    for example in itertools.chain.from_iterable(examples.epoch(rng) for _ in range(EPOCHS)):
        given = example.answer_start if example.answer_start > 1 else rng.randint(*CONTINUED)
        yield example.ids[: min(given, len(example.ids) - 1)]


def _unknown_prompts(examples: NanoExamples, rng: random.Random) -> Iterator[tuple[int, ...]]:
    """Each sentence as a text to continue, with and without its tag, to translate and to identify, and the Yoruba ones
    to diacritize."""
    for language, other in (("eng", "yor"), ("yor", "eng")):
        for sentence in unknown_sentences(language, rng):
            yield examples.prompt("continue", text=sentence, language=language)
            yield examples.prompt("translate", text=sentence, to=other)
            yield examples.prompt("identify_language", text=sentence)
            yield examples.prompt("continue", text=sentence, language=language)[1:]
            if language == "yor":
                yield examples.prompt("diacritize", text=without_marks(sentence))
