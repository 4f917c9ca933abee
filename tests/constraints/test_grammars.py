"""Grammars, beside a search through all tokens: which may come next, step by step, and where a text ends."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sabiyarn_edge.constraints.compiler import ConstraintCompiler
from sabiyarn_edge.constraints.constraint import Constraint
from sabiyarn_edge.constraints.grammars import Grammar
from sabiyarn_edge.constraints.vocabulary import ConstraintVocabulary
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.constraints.brute_force import Language, Matches, Texts, allowed_tokens, mask_of
from tests.constraints.vocabularies import EVERY_BYTE, byte_fallback, byte_level, word_pieces

pytest.importorskip("llguidance")

PIECES = [
    "ab",
    "abc",
    "ba",
    "cc",
    '":',
    '{"',
    "12",
    "0",
    "tr",
    "true",
    "ẹ",
    "ẹ́",
    "],",
    " ",
    "\n  ",
    "é",
    "xy",
]
TOKENIZERS = {
    "byte-level": byte_level([*EVERY_BYTE, *(piece.encode() for piece in PIECES if len(piece.encode()) > 1)]),
    "byte fallback": byte_fallback([*PIECES, " ab", "a", "b"]),
}
PADDING = 37
"""Ids of the model beyond its tokenizer's."""


def compiled(tokenizer: Tokenizer, **options: Any) -> Constraint:
    found = ConstraintCompiler(tokenizer, tokenizer.vocab_size + PADDING).constraint_of(
        GenerationConfig(**options)
    )
    assert found is not None
    return found


def walk(tokenizer: Tokenizer, constraint: Constraint, language: Language, seed: int, steps: int) -> None:
    """Follow random tokens through a constraint; at each step all tokens are tried."""
    rng = random.Random(seed)
    vocab_size = tokenizer.vocab_size + PADDING
    written = {t: tokenizer.token_bytes(t) for t in range(1, tokenizer.vocab_size)}
    state, text = constraint.start(), b""
    for _ in range(steps):
        allowed = allowed_tokens(language, text, written)
        if not text and not tokenizer.is_byte_level:  # a blank is lost there
            allowed = {t for t in allowed if not written[t].startswith(b" ")}
        assert mask_of(state, vocab_size) == allowed, text
        assert state.is_complete == language.has(text), text
        assert state.is_final == (language.has(text) and not allowed), text
        if not allowed:
            break
        refused = rng.choice([t for t in range(vocab_size) if t not in allowed])
        assert not state.fork().take(refused)
        token = rng.choice(sorted(allowed))
        assert state.take(token)
        text += written[token]


BEYOND_ASCII = (
    rb"[\xC2-\xDF][\x80-\xBF]|\xE0[\xA0-\xBF][\x80-\xBF]|\xED[\x80-\x9F][\x80-\xBF]|[\xE1-\xEC\xEE\xEF][\x80-\xBF]{2}|"
    rb"\xF0[\x90-\xBF][\x80-\xBF]{2}|[\xF1-\xF3][\x80-\xBF]{3}|\xF4[\x80-\x8F][\x80-\xBF]{2}"
)
"""A character of UTF-8 of more than one byte. Source: the Unicode standard, table 3-7."""
REGEXES: dict[str, Language] = {
    "[ẹé]{1,2}": Texts.of(a + b for a in "ẹé" for b in ["", *"ẹé"]),
    "[^a]b": Matches(rb"([\x00-`b-\x7F]|%s)b" % BEYOND_ASCII),
    **{
        pattern: Matches(pattern.encode())
        for pattern in (
            "(ab|abc|b)*c?",
            "a{2,5}b?",
            "[a-c]+x",
            "abc",
            "[0-9]{1,3}(\\.[0-9]+)?",
            'a/b"c?',
            "a?",
        )
    },
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("pattern", REGEXES)
def test_regex(tokenizer: Tokenizer, pattern: str) -> None:
    for seed in range(4):
        walk(tokenizer, compiled(tokenizer, regex=pattern), REGEXES[pattern], seed, steps=12)


GAP = rb"(?: |\n {0,16})?"
"""What may stand between two tokens of JSON."""
SCHEMAS: list[tuple[dict[str, Any], bytes]] = [
    ({"enum": ["ab", 12, None, True]}, rb'"ab"|12|null|true'),
    ({"type": "boolean"}, rb"true|false"),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "boolean"}, "xy": {"enum": [1, 12]}},
            "required": ["a"],
            "additionalProperties": False,
        },
        rb'\{G"a"G:G(true|false)(G,G"xy"G:G(1|12))?G\}'.replace(b"G", GAP),
    ),
    (
        {"type": "array", "items": {"enum": ["", 0]}, "minItems": 1, "maxItems": 3},
        rb'\[G(""|0)(G,G(""|0)){0,2}G\]'.replace(b"G", GAP),
    ),
    ({"type": "integer", "minimum": 9, "maximum": 12}, rb"9|10|11|12"),
    ({"enum": [2**53, -(2**53), 0.1]}, rb"-?9007199254740992|0\.1"),
    ({"type": "integer", "minimum": 2**53 - 1, "maximum": 2**53}, rb"900719925474099[12]"),
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("case", range(len(SCHEMAS)))
def test_json_schema(tokenizer: Tokenizer, case: int) -> None:
    schema, pattern = SCHEMAS[case]
    for seed in range(4):
        walk(tokenizer, compiled(tokenizer, json_schema=schema), Matches(pattern), seed, steps=40)


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_lark(tokenizer: Tokenizer) -> None:
    grammar = 'start: sum\nsum: NUMBER ("+" NUMBER)*\nNUMBER: /[1-9][0-9]?/'
    for seed in range(4):
        walk(
            tokenizer,
            compiled(tokenizer, grammar=grammar),
            Matches(rb"[1-9][0-9]?(\+[1-9][0-9]?)*"),
            seed,
            12,
        )


def test_a_grammar_may_ask_for_special_tokens() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    state = compiled(tokenizer, grammar='start: "a" <end> "b"').start()
    assert state.take(1 + ord("a"))
    assert mask_of(state, tokenizer.vocab_size + PADDING) == {0}
    assert state.take(0)
    assert state.take(1 + ord("b"))
    assert state.is_final


def test_forks_go_their_own_ways() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    first = compiled(tokenizer, regex="ab|cd").start()
    second = first.fork()
    assert first.take(1 + ord("a"))
    assert second.take(1 + ord("c"))
    vocab_size = tokenizer.vocab_size + PADDING
    assert mask_of(first, vocab_size) == {1 + ord("b")}
    assert mask_of(second, vocab_size) == {1 + ord("d")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"json_schema": {"type": "array", "uniqueItems": True, "not": {}}},
            r"json_schema .*uniqueItems[^{}]*$",
        ),
        ({"json_schema": {"type": "strin"}}, "^json_schema cannot be used: Invalid type: strin$"),
        ({"json_schema": {"type": "string", "format": "colour"}}, "json_schema .*colour"),
        ({"regex": "a(?=b)"}, "regex cannot be used: (?s:.*)look-ahead"),
        ({"regex": "a("}, "regex cannot be used: invalid regex (?s:.*)unclosed group$"),
        ({"json_schema": {"x-guidance": 3}}, "json_schema has x-guidance 3; it must be a JSON object"),
        ({"grammar": "start: nothing"}, r"grammar cannot be used: at 1\(8\): unknown name"),
        ({"grammar": "start: <nothing>"}, "grammar cannot be used: .*unknown special token"),
    ],
)
def test_what_cannot_be_followed_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        compiled(TOKENIZERS["byte-level"], **options)


def test_too_many_states_are_named() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    vocabulary = ConstraintVocabulary(tokenizer, tokenizer.vocab_size)
    with pytest.raises(InvalidInputError, match=r"json_schema is too complex: .*Simplify"):
        Grammar("json_schema", '{"type": "integer", "multipleOf": 999999999}', vocabulary)


def test_a_decoder_that_looks_at_neighbours_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match=r"decoder \(WordPiece\) changes tokens by what stands beside"
    ):
        compiled(word_pieces(), regex="a")


def test_an_empty_language_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="json_schema"):
        compiled(TOKENIZERS["byte-level"], json_schema={"type": "integer", "minimum": 3, "maximum": 2})


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(InvalidInputError, match=r'regex needs the package llguidance.*"\.\[json\]"'):
        compiled(TOKENIZERS["byte-level"], regex="a")
    assert compiled(TOKENIZERS["byte-level"], choices=["a"])
