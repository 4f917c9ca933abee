"""Encodings, as Hugging Face's tokenizers give them: ids and padding mask in one mapping, or as keywords of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..options.generation_config import OptionWarning
from ..system.caller_warning import warn_caller
from .tensors import readable

__all__ = ["padding_mask", "take_encoding"]

_TOKENIZER_OUTPUTS = (
    "length",
    "num_truncated_tokens",
    "offset_mapping",
    "overflow_to_sample_mapping",
    "overflowing_tokens",
    "special_tokens_mask",
    "token_type_ids",
)
"""Keys that Hugging Face's tokenizers give beside input_ids and attention_mask; none of them is an input of GPTJX."""


def take_encoding(inputs: Any, attention_mask: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """Find ids and padding mask, in whatever form they came.

    Args:
        inputs: prompts, or a mapping such as a BatchEncoding that holds input_ids.
        attention_mask: as given beside them, or None.
        options: of the call; what a tokenizer gave beside ids and mask is removed.

    Returns:
        (prompts, attention_mask); None where there is none.

    Warns:
        OptionWarning: names what was left out.
    """
    left_out = [name for name in _TOKENIZER_OUTPUTS if options.pop(name, None) is not None]
    if isinstance(inputs, Mapping):
        encoding = dict(inputs)
        inputs = encoding.pop("input_ids", None)
        given = encoding.pop("attention_mask", None)
        attention_mask = given if attention_mask is None else attention_mask
        left_out += sorted(map(str, encoding))
    if left_out:
        warn_caller(
            f"GPTJX takes input_ids and attention_mask only; left out {', '.join(left_out)}.", OptionWarning
        )
    return inputs, attention_mask


def padding_mask(mask: Any, ids: Any) -> Any:
    """The attention_mask [rows, tokens]; None where rows of unequal length are marked as tokens throughout.

    Args:
        mask, ids: without tensors.
    """
    if mask is None:
        return None
    with readable(mask, "attention_mask"):
        try:
            return np.atleast_2d(mask)
        except ValueError:  # rows of unequal length, as a tokenizer gives them without padding
            same_lengths = isinstance(ids, Sequence) and list(map(np.size, ids)) == list(map(np.size, mask))
            return None if same_lengths and all(np.all(np.equal(row, 1)) for row in mask) else mask
