"""Texts as vectors: the hidden states behind the model's last layer norm, from which it would choose the next token.

decoder.onnx gives them as a further output, `hidden_states`. Nobody pays for it: they are computed in every step, and
are handed out only when a run asks for them. Such a run computes the logits of the same positions too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.decoder import Decoder
from ..errors import InvalidInputError, NumericalError
from .pooling import POOLINGS, Pooling
from .scoring import SCORE_LOGITS_BYTES

__all__ = ["check_pooling", "embed_tokens"]

OUTPUT = "hidden_states"


def check_pooling(pooling: object) -> None:
    """Raise InvalidInputError if it is none."""
    if pooling not in POOLINGS:
        allowed = " or ".join(map(repr, POOLINGS))
        raise InvalidInputError(f"pooling is {pooling!r}; it must be {allowed}.")


def embed_tokens(session: Decoder, tokens: Sequence[int], pooling: Pooling) -> NDArray[np.float32]:
    """The vector [n_embd] of one text; the KV cache holds nothing else then.

    Args:
        tokens: at least one, at most the model's positions.
        pooling: "mean" of all tokens' hidden states, or the "last" token's, which has seen all the others.

    Raises:
        NumericalError: the model gave NaN or infinity.
    """
    ids = np.asarray(tokens, np.int64)
    wanted = len(ids) if pooling == "mean" else 1
    most = max(SCORE_LOGITS_BYTES // (4 * session.config.gptjx.vocab_size), 1)
    total = np.zeros(session.config.gptjx.n_embd, np.float64)
    session.begin(min(len(ids), session.window))
    done = 0
    while done < len(ids):
        # Several tokens on a full ring would evict what the first of them still has to see.
        room = max(session.window - session.kv_cache.length(0), 1)
        count = min(len(ids) - done, room, session.max_prefill_chunk, most if pooling == "mean" else len(ids))
        last = max(done + count - (len(ids) - wanted), 0)  # of these tokens, how many are wanted
        total += _run(session, ids[done : done + count], min(last, count)).sum(axis=0, dtype=np.float64)
        done += count
    if not np.isfinite(total).all():
        raise NumericalError("the model gave NaN or infinity for the text. Its weights may be damaged.")
    return (total / wanted).astype(np.float32)


def _run(session: Decoder, tokens: NDArray[np.int64], num_wanted: int) -> NDArray[np.float32]:
    """Append tokens to the first row; the hidden states [num_wanted, n_embd] of the last ones."""
    cache, shape, count = session.kv_cache, session.config.gptjx, len(tokens)
    position = cache.next_position(0)
    length = cache.begin_append(0, count)
    hidden = np.empty((1, num_wanted, shape.n_embd), np.float32)
    feeds: dict[str, NDArray[Any]] = {
        "input_ids": tokens[None],
        "position_ids": np.arange(position, position + count)[None],
        "seqlens_k": np.array([length - 1], np.int32),
        "logits_index": np.arange(count - num_wanted, count),
    }
    binding = session.graph.io_binding()
    for name, array in feeds.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for layer in range(shape.n_layer):
        for side in ("key", "value"):
            buffer = cache.buffer(layer, side)
            assert buffer is not None
            binding.bind_input(  # [1, n_heads, capacity, head_dim]
                f"past_key_values.{layer}.{side}", "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data
            )
    binding.bind_output(OUTPUT, "cpu", 0, np.float32, hidden.shape, hidden.ctypes.data)
    session.graph.run_with_iobinding(binding, session.shrinking_options)
    states: NDArray[np.float32] = hidden[0]
    return states
