"""What is a prompt, what is a list of prompts, and what is neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge.calls.prompts import read_prompt, read_prompts
from sabiyarn_edge.errors import InvalidInputError


def read(inputs: Any) -> tuple[list[list[int]], bool]:
    prompts = read_prompts(inputs, tokenizer=None, vocab_size=10, max_length=5)
    return prompts.ids, prompts.is_batch


@pytest.mark.parametrize(
    "one", [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), np.array([1, 2], np.uint8), [np.int64(1), 2]]
)
def test_ids_of_every_kind(one: Any) -> None:
    assert read(one) == ([[1, 2]], False)
    assert read([one, [3]]) == ([[1, 2], [3]], True)
    assert read_prompt(one, tokenizer=None, vocab_size=10) == [1, 2]


def test_the_rows_of_an_array_are_prompts() -> None:
    assert read(np.array([[1, 2], [3, 4]])) == ([[1, 2], [3, 4]], True)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (5, "the prompt is a int; it must be"),
        (np.array(5), "the prompt is a ndarray; it must be"),
        (b"ab", "the prompt is a bytes; it must be"),
        (bytearray(b"ab"), "the prompt is a bytearray; it must be"),
        ([b"ab"], "prompt 0 is a bytes; it must be"),
        ([1, [2]], "the prompt holds values that are not integers"),
        ([[1], [2, [3]]], "prompt 1 holds values that are not integers"),
        ([1, "a"], "the prompt holds values that are not integers"),
        ([1.0, 2.0], r"not integers \(float64\)"),
        ([True], r"not integers \(bool\)"),
        ([2**70], "token id 1180591620717411303424 at index 0"),
        ([], "the list of prompts is empty"),
        ([[1], []], "prompt 1 is empty"),
        ([3, 10], "token id 10 at index 1; ids of this model are 0 to 9"),
        ([-1], "token id -1 at index 0"),
        ([1] * 5, "5 tokens; with at most 5 positions"),
        ("text", "no tokenizer.json"),
    ],
)
def test_what_is_refused(inputs: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read(inputs)


def test_several_are_not_one() -> None:
    with pytest.raises(InvalidInputError, match="one by one"):
        read_prompt([[1], [2]], tokenizer=None, vocab_size=10)


class Counted(Sequence[int]):
    """A long sequence that counts how many of its entries are taken."""

    taken = 0

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: Any) -> Any:
        self.taken += 1
        return 1


def test_the_length_is_checked_before_ids_are_copied() -> None:
    for wrap in (lambda ids: ids, lambda ids: [ids]):
        ids = Counted()
        with pytest.raises(InvalidInputError, match="has 1000000000 entries; at most"):
            read_prompts(wrap(ids), tokenizer=None, vocab_size=10, max_length=None)
        assert ids.taken == 0
    with pytest.raises(InvalidInputError, match="100000 tokens; with at most 5 positions"):
        read(range(100_000))


@pytest.mark.parametrize("inputs", [[True, 5], [5, False], [[1], [5, np.True_]]], ids=str)
def test_true_and_false_are_no_ids(inputs: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"values that are not integers \(bool\)"):
        read(inputs)


def test_integers_that_no_array_holds_are_outside_the_vocabulary() -> None:
    with pytest.raises(InvalidInputError, match="token id -1 at index 0"):
        read([-1, 2**63])
