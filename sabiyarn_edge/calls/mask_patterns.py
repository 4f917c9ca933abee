"""Masks that users often need, as bool arrays [T, T] for attn_mask: mask[q, k] = token q may see token k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..options.checks import integer
from .tensors import as_array

__all__ = ["document_mask", "prefix_mask", "sliding_window_mask"]

Mask = NDArray[np.bool_]

_length = integer(at_least=1, at_most=2**16)  # a mask of so many tokens has 4 GiB


def document_mask(ids: Sequence[int] | NDArray[np.integer], separator_id: int) -> Mask:
    """Packed documents that do not see each other; causal within each.

    Args:
        ids: token ids [T] of documents joined by separators, or [B, T].
        separator_id: the id that ends a document (an end-of-text token, usually). It belongs to the document it ends.

    Returns:
        bool [T, T], or [B, T, T].

    Source: packing without cross-contamination, Krell et al. 2021, arXiv:2107.02027.
    """
    tokens = as_array(ids, "ids")
    if tokens.ndim not in (1, 2) or tokens.shape[-1] == 0 or tokens.dtype.kind not in "iu":
        raise InvalidInputError(
            f"ids has shape {tokens.shape} and dtype {tokens.dtype}; it must be integers [T] or [B, T], not empty."
        )
    _length("the number of ids", tokens.shape[-1])
    ends = tokens == integer()("separator_id", separator_id)
    document = np.cumsum(ends, axis=-1) - ends  # separators before each token
    same = document[..., :, None] == document[..., None, :]
    return np.asarray(same & _causal(tokens.shape[-1]))


def prefix_mask(length: int, total: int | None = None) -> Mask:
    """A bidirectional beginning: the first `length` tokens see each other; the others see what came before.

    Args:
        length: tokens of the beginning, 0 or more.
        total: tokens of the whole prompt, T; None: `length`, the whole prompt is bidirectional.

    Returns:
        bool [T, T].

    Source: prefix LM, Raffel et al. 2020 (T5), arXiv:1910.10683, section 3.2.
    """
    total = _length("total", length if total is None else total)
    length = integer(at_most=total)("length", length)
    mask = _causal(total)
    mask[:length, :length] = True
    return mask


@overload
def sliding_window_mask(
    window: int, total: None = None, *, num_sink_tokens: int = 0
) -> Callable[[int], Mask]: ...
@overload
def sliding_window_mask(window: int, total: int, *, num_sink_tokens: int = 0) -> Mask: ...
def sliding_window_mask(
    window: int, total: int | None = None, *, num_sink_tokens: int = 0
) -> Mask | Callable[[int], Mask]:
    """Each token sees the newest `window` tokens, itself included, and the first num_sink_tokens.

    Args:
        window: tokens that each sees, at least 1; the sinks do not count.
        total: tokens of the whole prompt, T; None: whatever each prompt has, texts included.
        num_sink_tokens: first tokens that all later ones see.

    Returns:
        bool [T, T]; without total a function from T to that, which attn_mask takes as well.

    Source: Longformer, Beltagy et al. 2020, arXiv:2004.05150; sinks: StreamingLLM, arXiv:2309.17453.
    """
    window = integer(at_least=1)("window", window)
    num_sink_tokens = integer()("num_sink_tokens", num_sink_tokens)
    if total is None:
        return lambda length: sliding_window_mask(window, length, num_sink_tokens=num_sink_tokens)
    total = _length("total", total)
    query, key = np.ogrid[:total, :total]
    return np.asarray((key <= query) & ((key > query - window) | (key < num_sink_tokens)))


def _causal(total: int) -> Mask:
    return np.tri(total, dtype=bool)
