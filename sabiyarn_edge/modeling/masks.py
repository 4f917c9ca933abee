"""A caller's masks, checked and brought to the one form that attention takes.

`attn_mask` says which key each query may see and replaces causality. `attention_mask` (key padding) says
which keys are tokens at all and is combined with causality or with `attn_mask`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInputError

__all__ = ["combine_with_padding", "read_attention_mask", "read_attn_mask"]


def read_attn_mask(attn_mask: Tensor, *, rows: int, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """Check an attn_mask and give it four dimensions.

    Args:
        attn_mask: (T, S), (1|rows, T, S) or (1|rows, 1, T, S) with T = queries and S = keys. Bool, True = may
            attend; or integers, 1 = may attend; or floats, which are added to the scores.
        dtype: the dtype of the scores, for additive masks.

    Returns:
        bool or `dtype`, [1|rows, 1, T, S].

    Raises:
        InvalidInputError: wrong shape or values, or a query that may see nothing.
    """
    shape = tuple(attn_mask.shape)
    batches = {1, rows}
    fits = shape[-2:] == (queries, keys) and (
        len(shape) == 2
        or (len(shape) == 3 and shape[0] in batches)
        or (len(shape) == 4 and shape[0] in batches and shape[1] == 1)
    )
    if not fits:
        raise InvalidInputError(
            f"attn_mask has shape {shape}; with {rows} rows, {queries} new tokens and {keys} keys "
            f"(past included) it must be (T, S) = ({queries}, {keys}), (1 or {rows}, {queries}, {keys}) or "
            f"(1 or {rows}, 1, {queries}, {keys}). Padding belongs in attention_mask."
        )
    mask = attn_mask.reshape(-1, 1, queries, keys)
    if mask.is_floating_point():
        if bool(mask.isnan().any()):
            raise InvalidInputError("attn_mask holds NaN; use 0 for 'may attend' and -inf for 'may not'.")
        if bool((mask == 1).any()) and bool(((mask == 0) | (mask == 1)).all()):
            raise InvalidInputError(
                "attn_mask is a float mask of zeros and ones, which would be added to the scores. "
                "Pass attn_mask.bool() if 1 means 'may attend', else 0 and -inf."
            )
        mask = mask.to(dtype)
    elif mask.dtype != torch.bool:
        mask = _zeros_and_ones(mask, "attn_mask")
    check_every_query_sees(mask, "attn_mask")
    return mask


def read_attention_mask(
    attention_mask: Tensor, *, rows: int, keys: int, device: torch.device
) -> Tensor | None:
    """Check a key padding mask (rows, keys), past keys included, 1 or True = a token.

    Returns:
        bool [rows, keys], or None when nothing is padding.

    Raises:
        InvalidInputError: wrong shape or values.
    """
    if tuple(attention_mask.shape) != (rows, keys):
        raise InvalidInputError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; it must be (rows, keys) = "
            f"({rows}, {keys}), past keys included. A mask per query belongs in attn_mask."
        )
    mask = attention_mask.to(device)
    mask = mask if mask.dtype == torch.bool else _zeros_and_ones(mask, "attention_mask")
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
    check_every_query_sees(combined, "attn_mask together with attention_mask")
    return combined


def check_every_query_sees(mask: Tensor, name: str) -> None:
    """Softmax over nothing has no value: refuse a query without a key to see."""
    sees = mask.any(dim=-1) if mask.dtype == torch.bool else (mask != float("-inf")).any(dim=-1)
    blind = (~sees).nonzero()
    if blind.numel():
        row, _, query = blind[0].tolist()
        raise InvalidInputError(
            f"{name} hides every key from new token {query} of row {row}. "
            "Let each token see at least one key, for instance itself."
        )


def _zeros_and_ones(mask: Tensor, name: str) -> Tensor:
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InvalidInputError(
            f"{name} has dtype {mask.dtype} and values other than 0 and 1. Use 0/1 or bool."
        )
    return mask == 1
