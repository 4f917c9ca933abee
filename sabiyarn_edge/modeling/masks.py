"""A caller's masks as the tensors that attention takes.

What a mask may hold and what it means is decided in calls.attention_masks, for the device and here alike. Only the
forward pass adds a rule: after past tokens a mask has more keys than queries, and padding stays in its row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core import MaskCache
from ..calls.attention_masks import check_every_token_sees, check_shape, check_values, zeros_and_ones
from ..calls.tensors import as_arrays
from ..errors import InvalidInputError

__all__ = ["CausalMasks", "combine_with_padding", "read_attention_mask", "read_attn_mask"]


class CausalMasks(MaskCache):
    """The core's causal masks by powers of two; a copied or saved model begins without any."""

    def __init__(self, largest: int) -> None:
        super().__init__(largest=largest)
        self._largest = largest

    def __reduce__(self) -> tuple[Any, ...]:
        return CausalMasks, (self._largest,)


def read_attn_mask(
    attn_mask: Tensor, *, rows: int, queries: int, keys: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Check an attn_mask and give it four dimensions.

    Args:
        attn_mask: (T, S), (1|rows, T, S) or (1|rows, 1, T, S) with T = queries and S = keys.
        dtype: the dtype of the scores, for additive masks.

    Returns:
        bool or `dtype`, [1|rows, 1, T, S].

    Raises:
        InvalidInputError: wrong shape or values, or a query that may see nothing.
    """
    case = f"with {rows} rows, {queries} new tokens and {keys} keys (past included)"
    check_shape(tuple(attn_mask.shape), rows, queries, keys, case)
    mask = attn_mask.reshape(-1, 1, queries, keys)
    values = check_values(as_arrays(mask, "attn_mask"))
    for row, own in enumerate(values[:, 0]):
        check_every_token_sees(own, None, row)
    # The tensor itself goes on, not the array: an additive mask may be learned.
    return mask.to(device, dtype) if mask.is_floating_point() else mask.to(device) == 1


def read_attention_mask(
    attention_mask: Tensor, *, rows: int, keys: int, device: torch.device
) -> Tensor | None:
    """Check a key padding mask (rows, keys), past keys included, 1 or True = a token.

    Returns:
        bool [rows, keys], or None when nothing is padding.

    Raises:
        InvalidInputError: wrong shape, dtype or values.
    """
    if tuple(attention_mask.shape) != (rows, keys):
        raise InvalidInputError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; it must be (rows, keys) = "
            f"({rows}, {keys}), past keys included. A mask per query belongs in attn_mask."
        )
    if attention_mask.dtype != torch.bool:
        zeros_and_ones(as_arrays(attention_mask, "attention_mask"), "attention_mask")
    mask = attention_mask.to(device) == 1
    return None if bool(mask.all()) else mask


def combine_with_padding(mask: Tensor, visible: Tensor, *, queries: int) -> Tensor:
    """Hide padding keys from a mask.

    A query that is padding itself sees only itself, so that its unused output stays finite.

    Args:
        mask: bool or additive float, [1|rows, 1, T, S] or [T, S].
        visible: bool [rows, S].
        queries: T, the last of the S keys.
    """
    hidden = ~visible[:, None, None, :]
    padding_query = torch.zeros(
        visible.shape[0], 1, queries, visible.shape[1], dtype=torch.bool, device=visible.device
    )
    torch.diagonal(padding_query, offset=visible.shape[1] - queries, dim1=-2, dim2=-1).copy_(
        hidden[..., -queries:].squeeze(2)
    )
    if mask.dtype == torch.bool:
        combined = (mask & ~hidden) | padding_query
    else:
        combined = mask.masked_fill(hidden, float("-inf")).masked_fill(padding_query, 0.0)
    every: NDArray[np.bool_] = np.ones(queries, bool)
    for row, own in enumerate(as_arrays(combined, "attn_mask")[:, 0]):
        check_every_token_sees(own, every, row)
    return combined
