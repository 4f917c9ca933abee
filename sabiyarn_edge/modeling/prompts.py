"""The prompts of generate() in the forms that people have them: encodings, tensors, arrays, lists."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..calls.attention_masks import CallMasks
from ..errors import InvalidInputError
from ..options.generation_config import OptionWarning
from .masks import as_arrays

__all__ = ["take_prompts"]

_TOKENIZER_OUTPUTS = (
    "length",
    "num_truncated_tokens",
    "offset_mapping",
    "overflow_to_sample_mapping",
    "overflowing_tokens",
    "special_tokens_mask",
    "token_type_ids",
)
"""What Hugging Face's tokenizers give beside input_ids and attention_mask; none of it is an input of GPTJX."""


def take_prompts(
    input_ids: Any, attn_mask: Any, attention_mask: Any, options: dict[str, Any]
) -> tuple[Any, CallMasks, torch.device | None]:
    """Unpack an encoding, and bring prompts and masks into the forms that `read_prompts` and CallMasks take.

    Args:
        input_ids: ids, or a mapping such as a BatchEncoding that holds them.
        options: of the call; what a tokenizer gave beside ids and mask is removed.

    Returns:
        (prompts, masks, the device of the ids if they are a tensor)

    Raises:
        InvalidInputError: there are no input_ids.

    Warns:
        OptionWarning: names what was left out.
    """
    left_out = [name for name in _TOKENIZER_OUTPUTS if options.pop(name, None) is not None]
    if isinstance(input_ids, Mapping):
        encoding = dict(input_ids)
        input_ids = encoding.pop("input_ids", None)
        given = encoding.pop("attention_mask", None)
        attention_mask = given if attention_mask is None else attention_mask
        left_out += sorted(map(str, encoding))
    if left_out:
        warnings.warn(
            f"GPTJX takes input_ids and attention_mask only; left out {', '.join(left_out)}.",
            OptionWarning,
            stacklevel=4,
        )
    if input_ids is None:
        raise InvalidInputError(
            "there are no input_ids. Give token ids, or an encoding that holds input_ids."
        )
    ids = as_arrays(input_ids)
    masks = CallMasks(as_arrays(attn_mask), _padding_mask(as_arrays(attention_mask), ids))
    return ids, masks, input_ids.device if isinstance(input_ids, torch.Tensor) else None


def _padding_mask(mask: Any, ids: Any) -> Any:
    """The attention_mask [rows, tokens]; None where rows of unequal length are marked as tokens throughout."""
    try:
        return None if mask is None else np.atleast_2d(mask)
    except ValueError:  # rows of unequal length, as a tokenizer gives them without padding
        same_lengths = isinstance(ids, Sequence) and list(map(np.size, ids)) == list(map(np.size, mask))
        return None if same_lengths and all(np.all(np.equal(row, 1)) for row in mask) else mask
