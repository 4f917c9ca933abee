"""Prompts: turns what `generate` takes as input into token ids, and checks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInputError, shown
from ..text.tokenizer import Tokenizer
from .tensors import as_array, as_arrays, check_count, readable

__all__ = ["Prompts", "holds_bools", "is_nothing", "read_prompt", "read_prompts"]


@dataclass(frozen=True)
class Prompts:
    """Checked prompts of one call."""

    ids: list[list[int]]
    """Token ids of each prompt, at least one each."""
    truncated: list[int]
    """How many tokens of each prompt were cut out before it became what `ids` says."""
    is_batch: bool
    """True if the caller gave a list of prompts, False if one prompt."""


def read_prompts(
    inputs: Any,
    *,
    tokenizer: Tokenizer | None,
    vocab_size: int,
    max_length: int | None,
    begins: bool = True,
) -> Prompts:
    """Turn a string, a list of strings, ids or a list of ids into ids, and check them.

    Args:
        inputs: as `EdgeGenerator.generate` takes them.
        tokenizer: the model's, or None if it has none.
        vocab_size: ids are 0 ... vocab_size - 1.
        max_length: most positions of prompt and output together; None: a prompt may be longer.
        begins: whether a string begins a text, and gets the special tokens that the tokenizer puts around one.

    Raises:
        InvalidInputError: nothing given, a prompt is empty, holds ids outside the vocabulary, is too long, or is a
            string and there is no tokenizer.
    """
    inputs = as_arrays(inputs, "the prompt")
    if isinstance(inputs, str):
        prompts, is_batch = [_encode(inputs, tokenizer, "the prompt", begins)], False
    elif _is_ids(inputs):
        prompts, is_batch = [_as_ids(inputs, "the prompt", max_length)], False
    elif _is_list(inputs):
        if len(inputs) == 0:
            raise InvalidInputError("the list of prompts is empty. Give at least one prompt.")
        prompts, is_batch = (
            [_read_one(item, tokenizer, f"prompt {i}", begins, max_length) for i, item in enumerate(inputs)],
            True,
        )
    else:
        raise InvalidInputError(
            f"the prompt is a {type(inputs).__name__}; it must be a string, a list of strings, token ids or a list "
            "of token ids."
        )
    for i, ids in enumerate(prompts):
        _check(ids, f"prompt {i}" if is_batch else "the prompt", vocab_size, max_length)
    return Prompts(prompts, [0] * len(prompts), is_batch)


def read_prompt(
    inputs: Any, *, tokenizer: Tokenizer | None, vocab_size: int, begins: bool = True
) -> list[int]:
    """The ids of one string or one list of ids, of any length.

    Args, Raises: as `read_prompts`; several prompts are refused.
    """
    prompts = read_prompts(inputs, tokenizer=tokenizer, vocab_size=vocab_size, max_length=None, begins=begins)
    if prompts.is_batch:
        raise InvalidInputError(
            "one string or one list of ids at a time is taken here, not several. Give them one by one."
        )
    return prompts.ids[0]


def is_nothing(inputs: Any) -> bool:
    """Return True for a text or a list that is empty."""
    with readable(inputs, "the prompt"):
        return (isinstance(inputs, str) or _is_list(inputs)) and len(inputs) == 0


def _is_list(value: Any) -> bool:
    """Return True for a list of any kind, of ids or of prompts."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def _is_ids(value: Any) -> bool:
    """Return True for one row of ids: an array of one dimension, or a sequence that starts with a number."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "iuf"
    return _is_list(value) and len(value) > 0 and isinstance(value[0], int | float | np.number)


def _read_one(
    item: Any, tokenizer: Tokenizer | None, name: str, begins: bool, max_length: int | None
) -> list[int]:
    if isinstance(item, str):
        return _encode(item, tokenizer, name, begins)
    if _is_ids(item) or (_is_list(item) and len(item) == 0):
        return _as_ids(item, name, max_length)
    raise InvalidInputError(f"{name} is a {type(item).__name__}; it must be a string or a list of token ids.")


def _encode(text: str, tokenizer: Tokenizer | None, name: str, begins: bool) -> list[int]:
    if tokenizer is None:
        raise InvalidInputError(
            f"{name} is a string, but the model folder has no tokenizer.json. Give token ids, or put the model's "
            "tokenizer.json into the folder."
        )
    return tokenizer.encode(text, add_special_tokens=begins)


def holds_bools(value: Any) -> bool:
    """Return True if a list, or a list in it, holds True or False. They are no ids; NumPy takes them for 1 and 0."""
    kinds = set(map(type, value)) if isinstance(value, list | tuple) else ()
    return not _BOOLS.isdisjoint(kinds) or (
        not _LISTS.isdisjoint(kinds) and any(holds_bools(item) for item in value)
    )


_BOOLS, _LISTS = {bool, np.bool_}, {list, tuple}


def _as_ids(value: Any, name: str, max_length: int | None) -> list[int]:
    """A row of integers as a list; its length is checked before it is copied."""
    check_count(value, name)
    _check_length(len(value), name, max_length)
    if isinstance(value, Sequence):
        kinds = set(map(type, value))
        if kinds == {int}:  # of any size: NumPy would make floats of some
            return list(value)
        if not _BOOLS.isdisjoint(kinds):
            raise InvalidInputError(
                f"{name} holds values that are not integers (bool); token ids are integers."
            )
    try:
        array = as_array(value, name)
    except InvalidInputError:  # lists among the numbers
        array = np.empty(1, object)
    if array.size and (array.dtype.kind not in "iu" or array.ndim != 1):
        raise InvalidInputError(
            f"{name} holds values that are not integers ({array.dtype}); token ids are integers."
        )
    ids: list[int] = array.tolist()
    return ids


def _check(ids: list[int], name: str, vocab_size: int, max_length: int | None) -> None:
    if not ids:
        raise InvalidInputError(f"{name} is empty. Give at least one token: some words to continue.")
    if min(ids) < 0 or max(ids) >= vocab_size:
        index, token = next((i, token) for i, token in enumerate(ids) if not 0 <= token < vocab_size)
        raise InvalidInputError(
            f"{name} has token id {shown(token)} at index {index}; ids of this model are 0 to {vocab_size - 1}."
        )
    _check_length(len(ids), name, max_length)


def _check_length(length: int, name: str, max_length: int | None) -> None:
    if max_length is not None and length >= max_length:
        raise InvalidInputError(
            f"{name} has {length} tokens; with at most {max_length} positions that leaves no room for a new token. "
            f"Shorten the prompt to at most {max_length - 1} tokens, or give "
            'overflow="slide" or "truncate_prompt".'
        )
