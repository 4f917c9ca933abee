"""A caller's masks, checked once and brought to one form: what the tokens of each prompt may see.

`attn_mask` says which key each query may see and replaces causality. `attention_mask` (key padding) says which of the
tokens given are tokens at all; the others are left out of their prompt, and of its mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.prompt_mask import PromptMask
from ..errors import InvalidInputError
from .prompts import holds_bools
from .tensors import as_array, readable

__all__ = [
    "CallMasks",
    "PromptMask",
    "check_every_token_sees",
    "check_shape",
    "check_values",
    "read_attn_mask",
    "zeros_and_ones",
]


class CallMasks:
    """The masks of one call of generate, as given."""

    def __init__(self, attn_mask: Any = None, attention_mask: Any = None) -> None:
        self._attn_mask, self._attention_mask = attn_mask, attention_mask
        self._real: NDArray[np.bool_] | None = None

    def without_padding(self, inputs: Any) -> Any:
        """The prompts without the ids that attention_mask calls padding; without attention_mask as they are.

        Args:
            inputs: prompts as `generate` takes them; with attention_mask, ids [B, S], or [S] for one prompt.

        Raises:
            InvalidInputError: attention_mask has the wrong shape, dtype or values, or leaves nothing of a row.
        """
        if self._attention_mask is None:
            return inputs
        ids = _rectangle(inputs)
        rows = np.atleast_2d(ids)
        mask = as_array(self._attention_mask, "attention_mask")
        if mask.shape != rows.shape:
            raise InvalidInputError(
                f"attention_mask has shape {mask.shape}, but the prompts are {len(rows)} rows of {rows.shape[1]} ids; "
                f"it must be (B, S) = {rows.shape}. A mask per query belongs in attn_mask."
            )
        self._real = mask if mask.dtype == np.bool_ else zeros_and_ones(mask, "attention_mask")
        for row, kept in enumerate(self._real):
            if not kept.any():
                raise InvalidInputError(
                    f"attention_mask leaves no token of row {row}. Mark at least one with 1."
                )
        if ids.ndim == 1:
            return ids[self._real[0]]
        return [row[kept] for row, kept in zip(rows, self._real, strict=True)]

    def of_prompts(self, lengths: Sequence[int]) -> list[PromptMask] | None:
        """Make one mask for each prompt; None: all are causal.

        Args:
            lengths: tokens of each prompt, without padding.

        Raises:
            InvalidInputError: see read_attn_mask.
        """
        if self._attn_mask is None:
            return None
        given = lengths if self._real is None else [row.size for row in self._real]
        masks = read_attn_mask(self._attn_mask, given, self._real)
        return None if all(mask.values is None for mask in masks) else masks


def _rectangle(inputs: Any) -> NDArray[Any]:
    """Prompts of equal length as one array."""
    try:
        ids = np.empty(0, object) if holds_bools(inputs) else as_array(inputs, "inputs")
    except InvalidInputError:  # rows of unequal length
        ids = np.empty(0, object)
    if ids.ndim not in (1, 2) or ids.dtype.kind not in "iu":
        raise InvalidInputError(
            "attention_mask goes with token ids [B, S] whose rows have equal length. Texts, and rows of unequal "
            "length, need no padding: leave attention_mask out."
        )
    return ids


def read_attn_mask(
    attn_mask: Any, lengths: Sequence[int], real: NDArray[np.bool_] | None = None
) -> list[PromptMask]:
    """Check a caller's attn_mask.

    Args:
        attn_mask: (T, S), (1|B, T, S) or (1|B, 1, T, S) with T = S = tokens of each of the B prompts; or a list of B
            masks (T, S), None = causal, for prompts of unequal length; or a function from a prompt's T to its mask.
            Bool, True = may attend; integers, 1 = may attend; or floats, which are added to the scores.
        lengths: tokens of each prompt, padding included.
        real: bool [B, T], which of them are tokens; None: all.

    Raises:
        InvalidInputError: wrong shape, dtype or values, or a token that may see nothing.
    """
    if callable(attn_mask):
        attn_mask = [attn_mask(length) for length in lengths]
    with readable(attn_mask, "attn_mask"):
        is_list = isinstance(attn_mask, list | tuple) and any(
            mask is None or np.ndim(mask) == 2 for mask in attn_mask
        )
    masks = (
        _read_list(attn_mask, lengths) if is_list else _read_array(as_array(attn_mask, "attn_mask"), lengths)
    )
    for row, mask in enumerate(masks):
        kept = None if real is None or real[row].all() else real[row]
        if mask.values is None:
            masks[row] = PromptMask(mask.length if kept is None else int(kept.sum()), None)
            continue
        values = mask.values if kept is None else np.ascontiguousarray(mask.values[kept][:, kept])
        check_every_token_sees(values, kept, row)
        masks[row] = PromptMask(len(values), values)
    return masks


def _read_list(masks: Sequence[Any], lengths: Sequence[int]) -> list[PromptMask]:
    if len(masks) != len(lengths):
        raise InvalidInputError(
            f"attn_mask is a list of {len(masks)} masks, but there are {len(lengths)} prompts. Give one for each; "
            "None means causal."
        )
    return [
        PromptMask(length, None) if mask is None else _read_array(as_array(mask, "attn_mask"), [length])[0]
        for mask, length in zip(masks, lengths, strict=True)
    ]


def _read_array(mask: NDArray[Any], lengths: Sequence[int]) -> list[PromptMask]:
    shape, rows, length = mask.shape, len(lengths), lengths[0]
    if len(set(lengths)) > 1:
        raise InvalidInputError(
            f"attn_mask is one array, but the prompts have {_name_lengths(lengths)} tokens. Give a list with one mask "
            "(T, T) for each prompt."
        )
    check_shape(shape, rows, length, length, f"for B = {rows} prompts of T = {length} tokens")
    values = check_values(mask.reshape(-1, length, length))
    return [PromptMask(length, values[row if len(values) > 1 else 0]) for row in range(rows)]


def check_shape(shape: tuple[int, ...], rows: int, queries: int, keys: int, case: str) -> None:
    """Raise unless a mask may have this shape.

    Args:
        shape: of the mask.
        rows: B.
        queries: T.
        keys: S.
        case: what it is for, in the error.

    Raises:
        InvalidInputError: it is not (T, S), (1|B, T, S) or (1|B, 1, T, S).
    """
    if shape[-2:] == (queries, keys) and shape[:-2] in ((), (1,), (rows,), (1, 1), (rows, 1)):
        return
    batch = "1" if rows == 1 else f"1 or {rows}"
    raise InvalidInputError(
        f"attn_mask has shape {shape}; {case} it must be (T, S) = ({queries}, {keys}), "
        f"({batch}, {queries}, {keys}) or ({batch}, 1, {queries}, {keys}). Padding belongs in attention_mask."
    )


def check_values(mask: NDArray[Any]) -> NDArray[np.bool_] | NDArray[np.float32]:
    """As bool, or as float32 without NaN and +inf."""
    if mask.dtype == np.bool_:
        return mask
    if mask.dtype.kind in "iu":
        return zeros_and_ones(mask, "attn_mask")
    if mask.dtype.kind != "f":
        raise InvalidInputError(
            f"attn_mask has dtype {mask.dtype}; it must be bool, integers 0 and 1, or floats that are added to the "
            "scores."
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes -inf, which hides, or +inf
        values = np.asarray(mask, np.float32)
    if np.isnan(values).any() or (values == np.inf).any():
        raise InvalidInputError(
            "attn_mask holds NaN, +inf or a number above float32's; use 0 for 'may attend' and -inf for 'may not'."
        )
    if (mask == 1).any() and ((mask == 0) | (mask == 1)).all():
        raise InvalidInputError(
            "attn_mask is a float mask of zeros and ones, which would be added to the scores. "
            "Pass attn_mask.astype(bool) if 1 means 'may attend', else 0 and -inf."
        )
    return values


def check_every_token_sees(values: NDArray[Any], kept: NDArray[np.bool_] | None, row: int) -> None:
    sees = (values if values.dtype == np.bool_ else values > -np.inf).any(axis=1)
    blind = np.flatnonzero(~sees)
    if len(blind):
        token = int(blind[0] if kept is None else np.flatnonzero(kept)[blind[0]])
        name = "attn_mask" if kept is None else "attn_mask together with attention_mask"
        raise InvalidInputError(
            f"{name} hides every key from token {token} of row {row}. Let each token see at least one key, for "
            "instance itself."
        )


def zeros_and_ones(mask: NDArray[Any], name: str) -> NDArray[np.bool_]:
    if mask.dtype.kind not in "iu":
        raise InvalidInputError(f"{name} has dtype {mask.dtype}; it must be bool or integers 0 and 1.")
    if not ((mask == 0) | (mask == 1)).all():
        raise InvalidInputError(
            f"{name} has dtype {mask.dtype} and values other than 0 and 1. Use 0/1 or bool."
        )
    return np.asarray(mask == 1)


def _name_lengths(lengths: Sequence[int]) -> str:
    return str(lengths[0]) if len(set(lengths)) == 1 else f"{min(lengths)} to {max(lengths)}"
