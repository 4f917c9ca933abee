"""Cuts a document into the units that a model reads at once, and keeps everything between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal

__all__ = ["UNITS", "Unit", "split_units"]

Unit = Literal["text", "line", "sentence"]
UNITS: tuple[Unit, ...] = ("text", "line", "sentence")
"""What a task reads at once: all of a text, a line of it, or a sentence."""

_WHITE_SPACE = re.compile(r"\s")
_EDGES = re.compile(r"(\s*)(.*?)(\s*)", re.DOTALL)
_WORDS = re.compile(r"\S+\s*")


def split_units(text: str, unit: Unit, fits: Callable[[str], bool]) -> list[tuple[str, bool]]:
    """Cut a text into pieces which, joined, are the text.

    A line or sentence that does not fit is cut further: into sentences, then between words.

    Args:
        fits: says whether a piece leaves room for its answer.

    Returns:
        (piece, whether it is a unit), in order; the others are white space.
    """
    pieces: list[tuple[str, bool]] = []
    for piece in _lines(text) if unit != "text" else [text]:
        for edge, core in _trimmed(piece):
            if core:
                pieces += _cut(core, unit, fits)
            elif edge:
                pieces.append((edge, False))
    return pieces


def _cut(core: str, unit: Unit, fits: Callable[[str], bool]) -> Iterator[tuple[str, bool]]:
    """The units of a piece without outer white space."""
    if unit == "text" or (unit == "line" and fits(core)):
        yield core, True
        return
    for sentence in _sentences(core):
        for part in _fitting(sentence, fits):
            for edge, words in _trimmed(part):
                if words or edge:
                    yield (words or edge), bool(words)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _trimmed(piece: str) -> list[tuple[str, str]]:
    """(white space, "") and ("", text) in their order."""
    match = _EDGES.fullmatch(piece)
    assert match is not None
    before, core, after = match.groups()
    return [(before, ""), ("", core), (after, "")]


def _sentences(line: str) -> Iterator[str]:
    """Sentences with the white space behind them.

    English rules serve all the languages: they end sentences alike, and have their abbreviations from English.
    """
    import sentencex  # here, since most calls need no sentences

    # White space outside ASCII makes sentencex 1.0 count bytes wrong, and abort.
    begin = 0
    for sentence in sentencex.segment("en", _WHITE_SPACE.sub(" ", line)):
        yield line[begin : begin + len(sentence)]
        begin += len(sentence)


def _fitting(piece: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """The piece, halved between words until every part fits or is a single word."""
    if fits(piece.strip()):
        yield piece
        return
    words = _WORDS.findall(piece)
    if len(words) < 2:
        yield piece
        return
    middle = len(words) // 2
    yield from _fitting("".join(words[:middle]), fits)
    yield from _fitting("".join(words[middle:]), fits)
