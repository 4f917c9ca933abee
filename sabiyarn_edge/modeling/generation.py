"""generate() of the torch model: the core's DecodeState chooses, torch computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._core import DecodeState
from ..calls.callbacks import Callbacks
from ..calls.decode_options import decode_state
from ..calls.prompts import read_prompts
from ..engine._decode import DecodeLoop
from ..errors import InvalidInputError
from ..options.generation_config import GenerationConfig
from .masks import combine_with_padding, read_attention_mask, read_attn_mask
from .outputs import GPTJXGenerateOutput
from .torch_backend import TorchBackend

if TYPE_CHECKING:
    from .model import GPTJXForCausalLM

__all__ = ["generate"]


def generate(
    model: GPTJXForCausalLM,
    input_ids: Tensor | Sequence[Sequence[int]],
    *,
    attn_mask: Tensor | None,
    attention_mask: Tensor | None,
    generation_config: GenerationConfig | None,
    use_cache: bool | None,
    options: dict[str, Any],
) -> GPTJXGenerateOutput:
    """What GPTJXForCausalLM.generate() does; see there."""
    callbacks = Callbacks.take_from(options)
    tokenizer = options.pop("tokenizer", None)
    config = (generation_config or model.generation_config).updated(**options)
    use_cache = model.config.use_kv_cache if use_cache is None else use_cache
    prompts, masks = _read(model, input_ids, attn_mask, attention_mask)
    _check_rows(model, len(prompts), use_cache)
    state = decode_state(
        config,
        prompts=prompts,
        vocab_size=model.config.vocab_size,
        max_positions=model.config.block_size,
        tokenizer=tokenizer,
    )
    rows_each = max(config.num_beams, config.num_return_sequences)
    cache = model.kv_cache if use_cache else None
    backend = TorchBackend(model, prompts, masks=masks, cache=cache, max_rows=len(prompts) * rows_each)
    training = model.training
    model.eval()
    try:
        _run(state, backend, callbacks)
    finally:
        model.train(training)
        if cache is not None:
            cache.clear()
    return _output(state, config)


def _read(
    model: GPTJXForCausalLM,
    input_ids: Tensor | Sequence[Sequence[int]],
    attn_mask: Tensor | None,
    attention_mask: Tensor | None,
) -> tuple[list[list[int]], list[Tensor] | None]:
    """The prompts' ids without padding, and their additive masks [p, p]."""
    rows: list[list[int]]
    if isinstance(input_ids, Tensor):
        if input_ids.dim() != 2:
            raise InvalidInputError(
                f"input_ids has shape {tuple(input_ids.shape)}; it must be (rows, tokens)."
            )
        rows = input_ids.tolist()
    else:
        rows = [list(row) for row in input_ids]
    widths = {len(row) for row in rows}
    if len(widths) > 1 and (attn_mask is not None or attention_mask is not None):
        raise InvalidInputError(
            "rows of unequal length take no attn_mask or attention_mask. Give a tensor (rows, tokens), and mark "
            "padding in attention_mask."
        )
    device = model.transformer.wte.weight.device
    count = max(widths, default=0)
    visible = None
    if attention_mask is not None:
        visible = read_attention_mask(attention_mask, rows=len(rows), keys=count, device=device)
    masks = None
    if attn_mask is not None:
        masks = _prompt_masks(
            attn_mask.to(device), visible, len(rows), count, model.transformer.wte.weight.dtype
        )
    if visible is not None:
        rows = [
            [token for token, kept in zip(row, own, strict=True) if kept]
            for row, own in zip(rows, visible.tolist(), strict=True)
        ]
    limit = model.config.block_size
    checked = read_prompts(rows, tokenizer=None, vocab_size=model.config.vocab_size, max_length=limit)
    return checked.ids, masks


def _prompt_masks(
    attn_mask: Tensor, visible: Tensor | None, rows: int, count: int, dtype: torch.dtype
) -> list[Tensor]:
    mask = read_attn_mask(attn_mask, rows=rows, queries=count, keys=count, dtype=dtype)
    if visible is not None:
        mask = combine_with_padding(mask, visible, queries=count)
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))
    each = [mask[row if len(mask) > 1 else 0, 0] for row in range(rows)]
    if visible is not None:
        each = [own[real][:, real] for own, real in zip(each, visible, strict=True)]
    return each


def _check_rows(model: GPTJXForCausalLM, prompts: int, use_cache: bool) -> None:
    if not use_cache:
        return
    if not model.config.use_kv_cache:
        raise InvalidInputError("use_cache is True, but use_kv_cache is False in this model's config.")
    limit = model.config.max_batch_size
    if prompts > limit:
        raise InvalidInputError(
            f"there are {prompts} prompts, but max_batch_size is {limit} with a KV cache. Give fewer, or load the "
            f"model with from_pretrained(..., max_batch_size={prompts})."
        )


def _run(state: DecodeState, backend: TorchBackend, callbacks: Callbacks) -> None:
    loop = DecodeLoop(state, backend, **callbacks.hooks())
    backend.prefill()
    loop.run()


def _output(state: DecodeState, config: GenerationConfig) -> GPTJXGenerateOutput:
    rows = state.sequences()
    longest = max(map(len, rows))
    pad = config.padding_token_id
    return GPTJXGenerateOutput(
        sequences=torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
        lengths=[len(row) for row in rows],
        finish_reasons=state.finish_reasons(),
        sequences_scores=state.sequences_scores() if config.num_beams > 1 else None,
        scores=state.scores() if config.output_scores else None,
    )
