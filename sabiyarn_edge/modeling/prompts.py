"""The prompts of generate() in the forms that people have them: encodings, tensors, arrays, lists."""

from __future__ import annotations

from typing import Any

import torch

from ..calls.attention_masks import CallMasks
from ..calls.encodings import padding_mask, take_encoding
from ..calls.tensors import as_arrays
from ..errors import InvalidInputError

__all__ = ["take_prompts"]


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
    input_ids, attention_mask = take_encoding(input_ids, attention_mask, options)
    if input_ids is None:
        raise InvalidInputError(
            "there are no input_ids. Give token ids, or an encoding that holds input_ids (not inputs or prompt)."
        )
    ids = as_arrays(input_ids, "input_ids")
    masks = CallMasks(
        as_arrays(attn_mask, "attn_mask"), padding_mask(as_arrays(attention_mask, "attention_mask"), ids)
    )
    return ids, masks, input_ids.device if isinstance(input_ids, torch.Tensor) else None
