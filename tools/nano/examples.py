"""Makes nano's training examples: sequences of ids, whose prompts are those that tasks.json writes.

<yor> first words ...                                  continue the article
<translate> article <yor>: the article in Yoruba       from the languages that tasks.json names as sources
<diacritize> text without marks <correct>: the text    Yoruba and Igbo
<identify> some words <lang_id>: <yor>                 name their language
"""

from __future__ import annotations

import math
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from sabiyarn_edge.tasks.task_file import TaskFile
from sabiyarn_edge.tasks.units import split_units
from sabiyarn_edge.text.tokenizer import Tokenizer
from tools.nano.corpus import Article
from tools.nano.tokenizer import END_OF_TEXT, language_tag

__all__ = ["DIACRITIZED", "TASKS", "Example", "NanoExamples", "without_marks"]

TASKS = Path(__file__).parent / "tasks.json"
"""The tasks.json of nano's folder, but for what is measured when it is trained."""

DIACRITIZED = ("yor", "ibo")
"""Languages whose marks nano learns to put on."""

UNTAGGED_SHARE = 0.4
"""Share of articles that are continued without their language tag, so that first words alone are enough."""
LATER_SHARE = 0.3
"""Share of articles of several sentences that are continued from another sentence than the first."""
SHORTENED_SHARE = 0.5
"""Share of prompts that hold only some words of their text, so that its beginning is enough."""
WHOLE_ANSWER_SHARE = 0.2
"""Share of translations that are learnt to their end; the others teach which text it is, and it is then continued."""
FIRST_TOKENS = 24
"""Tokens that are learnt of the other translations."""
LEARNT_PROMPT_SHARE = 0.15
"""Share of tasks' prompts that are learnt, too, so that the model tells texts of the document from others."""
DIACRITIZE_REPEATS = 2
"""Times that an epoch holds each article to diacritize: there are few of them."""
SPAN_WORDS = 40
"""Most words of a span of an article that is diacritized."""

CLOSING_MARKS = ".,;:"


def without_marks(text: str) -> str:
    """Return a text without its combining marks: tones, and dots below."""
    letters = unicodedata.normalize("NFD", text)
    bare = "".join(char for char in letters if unicodedata.category(char) != "Mn")
    return unicodedata.normalize("NFC", bare)


@dataclass(frozen=True)
class Example:
    """One sequence: what is given, and what must follow."""

    ids: tuple[int, ...]
    """Prompt and answer; the end token too, unless the answer is cut."""
    answer_start: int
    """Index in ids where the answer begins; at least 1."""
    learnt_from: int = 0
    """Index in ids of the first token that counts in the loss, at least 1; 0: the answer's first."""


class NanoExamples:
    """Makes the sequences of a corpus."""

    def __init__(self, articles: Sequence[Article], tokenizer: tokenizers.Tokenizer) -> None:
        self.articles = articles
        self._tokenizer = Tokenizer(tokenizer)
        self._tasks = TaskFile.read(TASKS).tasks
        self.end_of_text = self._id(END_OF_TEXT)
        self._most_words = self._tasks["identify_language"].max_words or 1
        self._sentences = {article: _sentences(article.text) for article in articles}
        self._fewest_words = _fewest_words(articles)
        sources = [article for article in articles if article.language in self._tasks["translate"].sources]
        self.pairs = [
            (source, target)
            for target in articles
            for source in sources
            if source.number == target.number and source.language != target.language
        ]
        """(article, the same article in another language), for each language from which is translated."""
        self.diacritized = [article for article in articles if article.language in DIACRITIZED]
        """The articles whose marks are learnt."""

    def sentences(self, article: Article) -> Sequence[str]:
        """The sentences of an article, cut as tasks with "unit": "sentence" cut them."""
        return self._sentences[article]

    def prompt(self, task: str, **slots: str) -> tuple[int, ...]:
        """The ids of a task's filled template."""
        parts = self._tasks[task].template.fill(slots, trusted=self._tasks[task].languages)
        return tuple(self._tokenizer.encode_parts(parts))

    # --- sequences

    def continuation(self, article: Article, *, tagged: bool = True, sentence: int = 0) -> Example:
        """`<lang> article`, of which all but the first token is asked for, from a sentence on to the end."""
        tag = (self._id(language_tag(article.language)),) if tagged else ()
        rest = " ".join(self._sentences[article][sentence:])
        return Example((*tag, *self._text_ids(rest), self.end_of_text), answer_start=1)

    def translation(self, given: str, language: str, text: str) -> Example:
        """A text in any language, and its translation into a language."""
        return self._answered("translate", self._text_ids(text), text=given, to=language)

    def diacritization(self, text: str) -> Example:
        """A text without its marks, and the text."""
        return self._answered("diacritize", self._text_ids(text), text=without_marks(text))

    def identification(self, text: str, language: str) -> Example:
        """The first words of a text, and the tag of its language."""
        words = text.split()[: self._most_words]
        return self._answered("identify_language", (self._id(language_tag(language)),), text=" ".join(words))

    # --- an epoch

    def epoch(self, rng: random.Random) -> list[Example]:
        """Each article to continue, to diacritize and to identify, and each pair to translate. All vary."""
        examples: list[Example] = []
        tasks: list[Example] = []
        for article in self.articles:
            later = rng.randrange(len(self._sentences[article])) if rng.random() < LATER_SHARE else 0
            tagged = rng.random() >= UNTAGGED_SHARE
            examples.append(self.continuation(article, tagged=tagged, sentence=later))
            tasks.append(self._random_identification(article, rng))
        tasks += [self._random_translation(source, target, rng) for source, target in self.pairs]
        for article in self.diacritized * DIACRITIZE_REPEATS:
            tasks += self._random_diacritizations(article, rng)
        for task in tasks:
            learnt_from = 1 if rng.random() < LEARNT_PROMPT_SHARE else task.answer_start
            examples.append(Example(task.ids, task.answer_start, learnt_from))
        return examples

    def longest(self) -> int:
        """Tokens of the longest sequence."""
        ids = {article: len(self._text_ids(article.text)) for article in self.articles}
        around = len(self.translation("", "eng", "").ids)
        pairs = [ids[source] + ids[target] + around for source, target in self.pairs]
        marked = [len(self.diacritization(s).ids) for a in self.diacritized for s in self._sentences[a]]
        return max([length + 2 for length in ids.values()] + pairs + marked)

    def _random_identification(self, article: Article, rng: random.Random) -> Example:
        words = article.text.split()
        if rng.random() < SHORTENED_SHARE:
            words = _random_span(words, rng, fewest=4, most=self._most_words)
        return self.identification(" ".join(words), article.language)

    def _random_translation(self, source: Article, target: Article, rng: random.Random) -> Example:
        given = source.text
        if rng.random() < SHORTENED_SHARE:
            given = _random_beginning(given, rng, self._fewest_words[source])
        whole = self.translation(given, target.language, target.text)
        end = None if rng.random() < WHOLE_ANSWER_SHARE else whole.answer_start + FIRST_TOKENS
        return Example(whole.ids[:end], whole.answer_start)

    def _random_diacritizations(self, article: Article, rng: random.Random) -> Iterator[Example]:
        if rng.random() < SHORTENED_SHARE:
            words = article.text.split()
            yield self.diacritization(" ".join(_random_span(words, rng, fewest=1, most=SPAN_WORDS)))
        else:
            yield from map(self.diacritization, self._sentences[article])

    # --- ids

    def _answered(self, task: str, answer: Iterable[int], **slots: str) -> Example:
        prompt = self.prompt(task, **slots)
        return Example((*prompt, *answer, self.end_of_text), answer_start=len(prompt))

    def _text_ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text))

    def _id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        assert token_id is not None, token
        return token_id


def _sentences(text: str) -> list[str]:
    return [piece for piece, is_unit in split_units(text, "sentence", lambda _: True) if is_unit]


def _fewest_words(articles: Sequence[Article]) -> dict[Article, int]:
    """Of each article: the fewest words with which no other one of its language begins; all if there are none."""
    beginnings = Counter(
        (article.language, *article.text.split()[:count])
        for article in articles
        for count in range(1, len(article.text.split()) + 1)
    )
    fewest = {}
    for article in articles:
        words = article.text.split()
        counts = (n for n in range(1, len(words)) if beginnings[article.language, *words[:n]] == 1)
        fewest[article] = next(counts, len(words))
    return fewest


def _random_beginning(text: str, rng: random.Random, fewest: int) -> str:
    """The first words of a text without the mark behind them: few words more often than many."""
    words = text.split()
    return " ".join(words[: _random_count(rng, fewest, len(words))]).rstrip(CLOSING_MARKS)


def _random_span(words: list[str], rng: random.Random, *, fewest: int, most: int) -> list[str]:
    count = _random_count(rng, fewest, min(most, len(words)))
    start = rng.randint(0, len(words) - count)
    return words[start : start + count]


def _random_count(rng: random.Random, fewest: int, most: int) -> int:
    """A number from fewest to most, small ones more often; most if there is none."""
    return most if fewest >= most else round(math.exp(rng.uniform(math.log(fewest), math.log(most))))
