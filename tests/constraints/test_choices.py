"""Choices, beside a search through all texts: which tokens may come next, and where a text ends."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sabiyarn_edge._core import ChoiceAutomaton, TokenBytes, TokenOrder
from sabiyarn_edge.constraints.choices import Choices
from sabiyarn_edge.constraints.vocabulary import ConstraintVocabulary
from sabiyarn_edge.errors import InvalidInputError
from tests.constraints.brute_force import Texts, mask_of, writable_tokens
from tests.constraints.vocabularies import END, EVERY_BYTE, byte_fallback, byte_level


def random_texts(rng: random.Random, letters: str) -> list[str]:
    return sorted({"".join(rng.choices(letters, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 8))})


@pytest.mark.parametrize("seed", range(40))
def test_every_step_allows_what_a_search_finds(seed: int) -> None:
    rng = random.Random(seed)
    letters = "abẹ"
    pieces = {text.encode() for text in random_texts(rng, letters)}
    pieces |= {
        bytes([byte]) for text in pieces for byte in text if rng.random() < 0.9
    }  # some texts may lack a way
    tokenizer = byte_level(sorted(pieces))
    vocab_size = tokenizer.vocab_size + rng.choice([0, 3, 40])  # a model's vocabulary may be padded
    vocabulary = ConstraintVocabulary(tokenizer, vocab_size)
    written = {token: tokenizer.token_bytes(token) for token in range(1, tokenizer.vocab_size)}
    texts = random_texts(rng, letters)
    everything = Texts.of(texts)

    unwritable = [text for text in texts if not can_write(text.encode(), set(written.values()))]
    if unwritable:
        with pytest.raises(InvalidInputError, match=f"choices holds '{unwritable[0]}'"):
            Choices(texts, vocabulary)
        return
    choices = Choices(texts, vocabulary)
    waiting, seen = [(choices.start(), b"")], set()
    while waiting:
        state, text = waiting.pop()
        if text in seen:
            continue
        seen.add(text)
        allowed = writable_tokens(everything, text, written)
        assert mask_of(state, vocab_size) == allowed
        assert state.is_complete == everything.has(text)
        assert state.is_final == (everything.has(text) and not allowed)
        for token in range(vocab_size):
            after = state.fork()
            assert after.take(token) == (token in allowed)
            if token in allowed:
                waiting.append((after, text + written[token]))
    assert everything.texts <= seen


def can_write(text: bytes, pieces: set[bytes]) -> bool:
    return not text or any(
        text.startswith(piece) and can_write(text[len(piece) :], pieces) for piece in pieces
    )


def test_special_tokens_write_no_text() -> None:
    vocabulary = ConstraintVocabulary(byte_level(EVERY_BYTE), 257)
    state = Choices([END], vocabulary).start()
    assert mask_of(state, 257) == {1 + ord("<")}


def test_tokens_that_lose_their_blank_do_not_come_first() -> None:
    tokenizer = byte_fallback([" yes", "yes", " no"])
    vocabulary = ConstraintVocabulary(tokenizer, tokenizer.vocab_size)
    blank_yes, yes, blank_no = range(257, 260)
    assert vocabulary.not_first == (1 + ord(" "), blank_yes, blank_no)  # they read "", "yes", "no" there
    state = Choices(["yes yes", "no"], vocabulary).start()
    assert mask_of(state, 260) == {yes, 1 + ord("y"), 1 + ord("n")}
    assert state.take(yes)
    assert mask_of(state, 260) == {blank_yes, 1 + ord(" ")}
    with pytest.raises(InvalidInputError, match="choices holds ' no', which the model's tokens cannot write"):
        Choices([" no"], vocabulary)


def test_many_choices_share_their_beginnings() -> None:
    """A thousand texts of 30 letters that differ in the end only."""
    tokenizer = byte_level(EVERY_BYTE)
    choices = Choices([f"{'x' * 27}{i:03}" for i in range(1000)], ConstraintVocabulary(tokenizer, 257))
    state = choices.start()
    for byte in b"x" * 27 + b"123":
        assert state.take(1 + byte)
    assert state.is_final
    assert not state.take(1 + ord("x"))


def test_a_long_token_is_followed_to_its_end() -> None:
    text = "ab" * 20_000
    tokenizer = byte_level([text.encode(), b"ab", b"a"])
    state = Choices([text], ConstraintVocabulary(tokenizer, 4)).start()
    assert mask_of(state, 4) == {1, 2}
    assert state.take(1)
    assert state.is_final


def test_the_binding_checks_what_it_is_given() -> None:
    order = TokenOrder(TokenBytes([b"a", b"b"] * 20), [])
    with pytest.raises(ValueError, match="there is no choice, or one is empty"):
        ChoiceAutomaton([], order, [])
    with pytest.raises(ValueError, match="there is no choice, or one is empty"):
        ChoiceAutomaton([b"a", b""], order, [])
    automaton = ChoiceAutomaton([b"a"], order, [])
    with pytest.raises(ValueError, match=r"shape \(1,\); it must be one row of at least 2 words"):
        automaton.allow(0, np.zeros(1, np.uint32))
    for state in (-2, 2):
        with pytest.raises(IndexError, match="no state"):
            automaton.next(state, 0)
    assert automaton.next(-1, 0) == -1
