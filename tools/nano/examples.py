"""Makes nano's training examples: sequences of ids for its two uses, and batches of them.

<yor> first words ...                    continue the article
<translate> English article <yor> ...    translate it
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tools.nano.corpus import Article
from tools.nano.tokenizer import END_OF_TEXT, LANGUAGES, language_tag

__all__ = ["Example", "NanoExamples", "group_by_length", "to_tensors"]

UNTAGGED_SHARE = 0.4
"""Share of articles shown without their language tag, so that first words alone are enough."""
SHORTENED_SHARE = 0.5
"""Share of translations whose English is cut after some words, so that its beginning is enough."""

IGNORED_TARGET = -100
"""Target of a position that does not count in the loss; the value that GPTJXForCausalLM.forward() skips."""


@dataclass(frozen=True)
class Example:
    """One sequence: what is given, and what must follow."""

    ids: tuple[int, ...]
    """Prompt, answer and the end token."""
    answer_start: int
    """Index in ids from which on they count in the loss; at least 1."""


class NanoExamples:
    """Makes the sequences of a corpus."""

    def __init__(self, articles: Sequence[Article], tokenizer: Tokenizer) -> None:
        self.articles = articles
        self._tokenizer = tokenizer
        self._ids = {article: tuple(tokenizer.encode(article.text).ids) for article in articles}
        english = {article.number: article for article in articles if article.language == "eng"}
        self._fewest_words = {
            article: _words_until_unique(article, english.values()) for article in english.values()
        }
        self.pairs = [
            (english[article.number], article)
            for article in articles
            if article.language != "eng" and article.number in english
        ]
        """(English article, its translation), for each article in another language."""
        self.end_of_text = self._id(END_OF_TEXT)
        self._translate = self._id("<translate>")
        self._tags = {language: self._id(language_tag(language)) for language in LANGUAGES}

    def continuation(self, article: Article, *, tagged: bool = True) -> Example:
        """`<lang> article`, all of which counts; or the article alone, where its first token is given."""
        tag = (self._tags[article.language],) if tagged else ()
        return Example((*tag, *self._ids[article], self.end_of_text), answer_start=1)

    def translation(self, english: Article, other: Article, *, words: int | None = None) -> Example:
        """`<translate> English <lang> other`, of which `other` counts; words: of the English, None = all."""
        source = self._ids[english]
        if words is not None:
            source = tuple(self._tokenizer.encode(" ".join(_words(english)[:words])).ids)
        prompt = (self._translate, *source, self._tags[other.language])
        return Example((*prompt, *self._ids[other], self.end_of_text), answer_start=len(prompt))

    def epoch(self, rng: random.Random) -> list[Example]:
        """Each article and each pair once; some articles untagged, some English shortened."""
        continuations = [
            self.continuation(article, tagged=rng.random() >= UNTAGGED_SHARE) for article in self.articles
        ]
        translations = [
            self.translation(english, other, words=self._cut(english, rng)) for english, other in self.pairs
        ]
        return continuations + translations

    def longest(self) -> int:
        """Tokens of the longest sequence."""
        lengths = [len(self.continuation(article).ids) for article in self.articles]
        return max(lengths + [len(self.translation(english, other).ids) for english, other in self.pairs])

    def _cut(self, english: Article, rng: random.Random) -> int | None:
        """Words to keep, few more often than many, but enough to tell which article it is. None: all."""
        if rng.random() >= SHORTENED_SHARE:
            return None
        fewest, all_words = self._fewest_words[english], len(_words(english))
        return round(math.exp(rng.uniform(math.log(fewest), math.log(all_words))))

    def _id(self, token: str) -> int:
        token_id: int | None = self._tokenizer.token_to_id(token)
        assert token_id is not None, token
        return token_id


def _words(article: Article) -> list[str]:
    return article.text.split(" ")


def _words_until_unique(article: Article, all_articles: Collection[Article]) -> int:
    """The smallest number of words with which no other article begins; all if there is none."""
    words = _words(article)
    others = [_words(other) for other in all_articles if other != article]
    for count in range(1, len(words)):
        if all(other[:count] != words[:count] for other in others):
            return count
    return len(words)


def group_by_length(
    examples: Iterable[Example], *, max_tokens: int, rng: random.Random | None = None
) -> Iterator[list[Example]]:
    """Batches of sequences of like length: at most max_tokens tokens with padding, or one sequence.

    Args:
        rng: mixes neighbours in length, which makes other batches each time, and shuffles the batches. None:
            strictly by length, short ones first.
    """
    spread = 0.1  # neighbours are up to a tenth apart in length: that much padding for variety
    by_length = sorted(examples, key=lambda e: len(e.ids) * (1 + spread * rng.random() if rng else 1))
    batches: list[list[Example]] = []
    width = 0
    for example in by_length:
        width = max(width, len(example.ids))
        if not batches or (len(batches[-1]) + 1) * width > max_tokens:
            batches.append([])
            width = len(example.ids)
        batches[-1].append(example)
    if rng is not None:
        rng.shuffle(batches)
    yield from batches


def to_tensors(batch: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """input_ids and targets, both int64 [len(batch), longest sequence - 1].

    Shorter rows are padded on the right with id 0, which no earlier token sees and which does not count.
    """
    width = max(len(example.ids) for example in batch) - 1
    input_ids = torch.zeros(len(batch), width, dtype=torch.int64)
    targets = torch.full((len(batch), width), IGNORED_TARGET, dtype=torch.int64)
    for row, example in enumerate(batch):
        ids, start = torch.tensor(example.ids), example.answer_start
        input_ids[row, : len(ids) - 1] = ids[:-1]
        targets[row, start - 1 : len(ids) - 1] = ids[start:]
    return input_ids, targets
