from __future__ import annotations

import json
import unicodedata

import pytest

from sabiyarn_edge.errors import InvalidInputError
from tests.tools.nano.tiny_corpus import ARTICLES, write_corpus
from tools.nano.corpus import Article, read_corpus

GOOD = '{"lang": "yor", "article": 1, "text": "Òjò rọ̀."}\n'


def test_reads_what_is_there(tmp_path):
    assert read_corpus(write_corpus(tmp_path / "corpus.jsonl")) == ARTICLES


def test_brings_text_to_nfc_and_skips_empty_lines(tmp_path):
    text = unicodedata.normalize("NFD", "  Òjò rọ̀. ")
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n" + json.dumps({"lang": "yor", "article": 0, "text": text}) + "\n\n", encoding="utf-8")
    assert read_corpus(path) == [Article("yor", 0, unicodedata.normalize("NFC", "Òjò rọ̀."))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no article"),
        ("\n \n", "holds no article"),
        (GOOD + "{", "line 2 is not JSON"),
        (GOOD + "[1]", "line 2 lacks lang, article or text"),
        ('{"lang": "yor", "text": "x"}', "line 1 lacks lang, article or text"),
        ('{"lang": "fra", "article": 1, "text": "x"}', "lang is 'fra'; it must be one of eng, yor"),
        ('{"lang": ["yor"], "article": 1, "text": "x"}', "lang is \\['yor'\\]"),
        ('{"lang": "yor", "article": "1", "text": "x"}', "article is '1'"),
        ('{"lang": "yor", "article": true, "text": "x"}', "article is True"),
        ('{"lang": "yor", "article": -1, "text": "x"}', "article is -1"),
        ('{"lang": "yor", "article": 1, "text": " "}', "text is ' '"),
        ('{"lang": "yor", "article": 1, "text": 5}', "text is 5"),
        (GOOD + GOOD, "line 2: article 1 in yor is there twice"),
    ],
)
def test_says_in_one_line_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "corpus.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message) as raised:
        read_corpus(path)
    assert "\n" not in str(raised.value)


def test_missing_file_folder_and_other_encodings(tmp_path):
    with pytest.raises(InvalidInputError, match="No such file"):
        read_corpus(tmp_path / "absent.jsonl")
    with pytest.raises(InvalidInputError, match="cannot read the corpus"):
        read_corpus(tmp_path)
    (tmp_path / "latin1.jsonl").write_bytes(b'{"text": "\xe9"}')
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        read_corpus(tmp_path / "latin1.jsonl")
