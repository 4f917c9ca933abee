"""What forward() and generate() give back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..system.value_equality import ValueEquality

__all__ = ["GPTJXGenerateOutput", "GPTJXOutput"]


@dataclass(frozen=True, eq=False)
class GPTJXOutput:
    """What forward() returns. It is equal to itself alone: compare `logits`."""

    logits: Tensor
    """[rows, T, vocab_size], or the last logits_to_keep of the T positions."""
    loss: Tensor | None = None
    """Mean cross-entropy in nats over the targets that count, a scalar; None without targets."""
    load_balancing_loss: Tensor | None = None
    """Of a mixture of experts in training mode: how unevenly tokens are routed, mean over the layers, a scalar of at
    least about num_experts_per_tok. Add a small multiple of it to `loss`; 0.01 is usual. Else None."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GPTJXGenerateOutput(ValueEquality):
    """What generate(..., return_dict_in_generate=True) returns; one row per prompt and returned sequence."""

    sequences: Tensor
    """int64 [rows, length]: prompt (without its padding) and output, filled up on the right with pad_token_id."""
    lengths: list[int]
    """Tokens of each row, prompt included."""
    truncated_tokens: list[int]
    """Tokens that overflow="truncate_prompt" cut out of each row's prompt."""
    finish_reasons: list[str]
    """Why each row ended: "eos", "stop", "length", "time" or "cancelled". With beams, a row for which no sequence
    was left (all scores below -1e9, by a large negative length_penalty or because few tokens were allowed) has no new
    token, the score -1e9 and "length"."""
    sequences_scores: list[float] | None
    """With beams: sum of log-probabilities / generated length ** length_penalty; else None."""
    scores: list[list[float]] | None
    """With output_scores: the log-probability of each generated token; else None."""
