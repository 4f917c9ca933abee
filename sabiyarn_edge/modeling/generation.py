"""generate() of the torch model: the core's DecodeState chooses, torch computes."""

from __future__ import annotations

from typing import Any

import torch

from .._core import DecodeState
from ..calls.attention_masks import PromptMask
from ..calls.callbacks import Callbacks
from ..calls.decode_options import DEFAULT_MAX_NEW_TOKENS, decode_state
from ..calls.outcome import finish_reasons
from ..calls.prompts import Prompts, read_prompts
from ..constraints.compiler import ConstraintCompiler
from ..engine._decode import DecodeLoop
from ..errors import InvalidInputError
from ..options.generation_config import GenerationConfig
from ..options.overflow import Overflow, SlidingContext, cut_prompt
from .network import GPTJXNetwork
from .outputs import GPTJXGenerateOutput
from .prompts import take_prompts
from .torch_backend import TorchBackend

__all__ = ["generate"]


def generate(
    model: GPTJXNetwork,
    input_ids: Any,
    *,
    attn_mask: Any,
    attention_mask: Any,
    generation_config: GenerationConfig | None,
    use_cache: bool | None,
    options: dict[str, Any],
) -> GPTJXGenerateOutput:
    """What GPTJXForCausalLM.generate() does; see there."""
    inputs, given_masks, device = take_prompts(input_ids, attn_mask, attention_mask, options)
    callbacks = Callbacks.take_from(options)
    overflow = Overflow("slide").take_from(options)
    tokenizer = options.pop("tokenizer", None)
    given = model.generation_config if generation_config is None else GenerationConfig.of(generation_config)
    config = given.updated(**options)
    constraint = ConstraintCompiler(tokenizer, model.config.vocab_size).constraint_of(config)
    use_cache = model.config.use_kv_cache if use_cache is None else use_cache
    positions, slides = model.config.block_size, overflow.mode == "slide"
    prompts = read_prompts(
        given_masks.without_padding(inputs),
        tokenizer=tokenizer,
        vocab_size=model.config.vocab_size,
        max_length=positions if overflow.mode == "error" else None,
    )
    masks = given_masks.of_prompts([len(ids) for ids in prompts.ids])
    if overflow.mode == "truncate_prompt":
        prompts, masks = _cut(prompts, masks, config, positions, overflow.keep_tokens)
    _check_rows(model, len(prompts.ids), use_cache)
    context = SlidingContext(positions, positions, overflow.keep_tokens if slides else 0)
    state = decode_state(
        config,
        prompts=prompts.ids,
        vocab_size=model.config.vocab_size,
        max_positions=None if slides else positions,
        tokenizer=tokenizer,
    )
    cache = model.kv_cache if use_cache else None
    rows_each = max(config.num_beams, config.num_return_sequences)
    backend = TorchBackend(model, context, masks=masks, cache=cache, max_rows=len(prompts.ids) * rows_each)
    training = model.training
    model.eval()
    try:
        loop = DecodeLoop(state, **callbacks.hooks(config, constraint))
        backend.prefill(state)
        loop.run(backend)
    finally:
        model.train(training)
        if cache is not None:
            cache.clear()
    return _output(state, config, prompts, device or model.transformer.wte.weight.device)


def _cut(
    prompts: Prompts,
    masks: list[PromptMask] | None,
    config: GenerationConfig,
    positions: int,
    keep_tokens: int,
) -> tuple[Prompts, list[PromptMask] | None]:
    """The prompts, and their masks, with so much cut out that the output fits."""
    new_tokens = config.max_new_tokens
    if new_tokens is None:
        positions = min(positions, config.max_length or positions)
        new_tokens = max(min(DEFAULT_MAX_NEW_TOKENS, positions // 2), config.min_new_tokens or 0)
    kept = [
        cut_prompt(
            list(range(len(prompt))),
            new_tokens=new_tokens,
            positions=positions,
            window=positions,
            keep_tokens=keep_tokens,
        )
        for prompt in prompts.ids
    ]
    ids = [[prompt[at] for at in places] for prompt, places in zip(prompts.ids, kept, strict=True)]
    truncated = [len(old) - len(new) for old, new in zip(prompts.ids, ids, strict=True)]
    if masks is not None:
        masks = [mask.of_kept(places) for mask, places in zip(masks, kept, strict=True)]
    return Prompts(ids, truncated, prompts.is_batch), masks


def _check_rows(model: GPTJXNetwork, prompts: int, use_cache: bool) -> None:
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


def _output(
    state: DecodeState, config: GenerationConfig, prompts: Prompts, device: torch.device
) -> GPTJXGenerateOutput:
    rows = state.sequences()
    longest = max(map(len, rows))
    pad = config.padding_token_id
    rows_each = config.num_return_sequences
    return GPTJXGenerateOutput(
        sequences=torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device),
        lengths=[len(row) for row in rows],
        truncated_tokens=[prompts.truncated[row // rows_each] for row in range(len(rows))],
        finish_reasons=finish_reasons(state, config),
        sequences_scores=state.sequences_scores() if config.num_beams > 1 else None,
        scores=state.scores() if config.output_scores else None,
    )
