"""Checks of what forward() is given, and the positions of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInputError
from ..model_folder.config import GPTJXConfig

__all__ = ["IGNORE_INDEX", "Span", "check_targets", "check_token_ids", "token_positions"]

IGNORE_INDEX = -100
"""Targets of this value do not count in the loss."""


@dataclass(frozen=True)
class Span:
    """The new tokens of one forward pass, and how many positions stand before them."""

    rows: int
    past: int
    """Positions in the KV cache; 0 without it."""
    count: int
    """New tokens of each row (T)."""

    @property
    def keys(self) -> int:
        """What attention may look at (S): past and new positions."""
        return self.past + self.count

    def check(self, config: GPTJXConfig) -> None:
        """Raise InvalidInputError when a position would lie beyond the position table."""
        if self.keys > config.block_size:
            before = f"{self.past} past and " if self.past else ""
            advice = f"Give at most {config.block_size - self.past} new tokens"
            raise InvalidInputError(
                f"{before}{self.count} new tokens make {self.keys} positions, but block_size is "
                f"{config.block_size}. "
                + advice
                + (", or call clear_kv_cache() first." if self.past else ".")
            )


def check_token_ids(input_ids: Tensor, config: GPTJXConfig) -> None:
    """Raise InvalidInputError unless input_ids are integers [rows, T] in the vocabulary, at least one."""
    if not isinstance(input_ids, Tensor) or input_ids.is_meta:
        raise InvalidInputError(
            f"input_ids is a {'meta tensor' if isinstance(input_ids, Tensor) else type(input_ids).__name__}; it must "
            "be a tensor of integers with values. Only generate takes lists and arrays."
        )
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        raise InvalidInputError(
            f"input_ids has shape {tuple(input_ids.shape)}; it must be (rows, tokens), both at least 1."
        )
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise InvalidInputError(f"input_ids has dtype {input_ids.dtype}; it must be an integer dtype.")
    outside = (input_ids < 0) | (input_ids >= config.vocab_size)
    if bool(outside.any()):
        row, index = outside.nonzero()[0].tolist()
        raise InvalidInputError(
            f"input_ids holds {int(input_ids[row, index])} (row {row}, token {index}); ids must be in "
            f"0 ... {config.vocab_size - 1}. Was the text encoded with this model's tokenizer?"
        )


def check_targets(targets: Tensor, input_ids: Tensor, config: GPTJXConfig) -> None:
    """Raise InvalidInputError unless targets fit input_ids and are ids or IGNORE_INDEX."""
    if targets.shape != input_ids.shape:
        raise InvalidInputError(
            f"targets has shape {tuple(targets.shape)}; it must be that of input_ids, "
            f"{tuple(input_ids.shape)}."
        )
    outside = (targets != IGNORE_INDEX) & ((targets < 0) | (targets >= config.vocab_size))
    if bool(outside.any()):
        raise InvalidInputError(
            f"targets holds {int(targets[outside][0])}; ids must be in 0 ... {config.vocab_size - 1}, "
            f"or {IGNORE_INDEX} for a position that does not count."
        )


def token_positions(
    position_ids: Tensor | None,
    visible: Tensor | None,
    span: Span,
    config: GPTJXConfig,
    device: torch.device,
) -> Tensor:
    """Positions of the new tokens, [1|rows, T].

    Args:
        position_ids: the caller's own, [1|rows, T] or [T], or None.
        visible: key padding, bool [rows, S], or None; padding does not count as a position.
    """
    if position_ids is None and visible is not None:
        return (visible.cumsum(dim=1) - 1).clamp(min=0)[:, span.past :]
    if position_ids is None:
        return torch.arange(span.past, span.keys, device=device)[None]
    shape = tuple(position_ids.shape)
    if shape not in ((span.count,), (1, span.count), (span.rows, span.count)):
        raise InvalidInputError(
            f"position_ids has shape {shape}; it must be ({span.count},), (1, {span.count}) or "
            f"({span.rows}, {span.count})."
        )
    if position_ids.is_floating_point() or bool(
        ((position_ids < 0) | (position_ids >= config.block_size)).any()
    ):
        raise InvalidInputError(
            f"position_ids must be integers in 0 ... {config.block_size - 1} (block_size - 1)."
        )
    return position_ids.to(device).reshape(-1, span.count)
