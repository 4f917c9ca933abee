"""The corpus that nano learns: one document in several languages, one article a line."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from sabiyarn_edge.errors import InvalidInputError
from tools.nano.tokenizer import LANGUAGES

__all__ = ["Article", "read_corpus"]

EXPECTED = 'Each line must be a JSON object like {"lang": "yor", "article": 1, "text": "..."}.'


@dataclass(frozen=True)
class Article:
    """One article in one language."""

    language: str
    """One of LANGUAGES."""
    number: int
    """The same in all languages: articles of one number are translations of each other."""
    text: str
    """NFC, not empty, without white space around it."""


def read_corpus(path: str | Path) -> list[Article]:
    """Read a JSON Lines file of articles: keys lang, article, text; UTF-8.

    Raises:
        InvalidInputError: it cannot be read, is empty, or a line is not an article of its own.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InvalidInputError(f"cannot read the corpus {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the corpus {path} is not UTF-8 text ({error}). {EXPECTED}") from error
    articles: dict[tuple[str, int], Article] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        article = _parse(line, place=f"{path}, line {number}")
        key = (article.language, article.number)
        if key in articles:
            raise InvalidInputError(
                f"{path}, line {number}: article {article.number} in {article.language} is there twice."
            )
        articles[key] = article
    if not articles:
        raise InvalidInputError(f"the corpus {path} holds no article. {EXPECTED}")
    return list(articles.values())


def _parse(line: str, *, place: str) -> Article:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InvalidInputError(f"{place} is not JSON ({error}). {EXPECTED}") from error
    if not isinstance(values, dict) or not {"lang", "article", "text"} <= values.keys():
        raise InvalidInputError(f"{place} lacks lang, article or text. {EXPECTED}")
    language, number, text = values["lang"], values["article"], values["text"]
    if language not in LANGUAGES:
        raise InvalidInputError(f"{place}: lang is {language!r}; it must be one of {', '.join(LANGUAGES)}.")
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise InvalidInputError(f"{place}: article is {number!r}; it must be an integer of at least 0.")
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError(f"{place}: text is {text!r}; it must be a text that is not empty.")
    return Article(language, number, unicodedata.normalize("NFC", text.strip()))
