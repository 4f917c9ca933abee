"""The one place that decides what a call does: prompts, positions, new tokens, truncation, masks, seeds and memory.

Whatever is refused is refused here, before anything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .._core import DecodeOptions
from ..constraints.compiler import ConstraintCompiler
from ..constraints.constraint import Constraint
from ..engine.generation import GenerationRequest, Lookup
from ..engine.prompt_mask import PromptMask
from ..errors import InvalidInputError
from ..options.checks import flag
from ..options.generation_config import GenerationConfig
from ..options.overflow import Overflow, SlidingContext, cut_prompt
from ..planning.memory_plan import MIB, CallCosts
from ..text.tokenizer import Tokenizer
from .attention_masks import CallMasks
from .callbacks import Callbacks
from .decode_options import DEFAULT_MAX_NEW_TOKENS, decide_seeds, decode_options, max_new_tokens
from .encodings import padding_mask, take_encoding
from .prompts import Prompts, read_prompts
from .tensors import as_arrays

__all__ = ["DEFAULT_LOOKUP_NGRAM", "Call", "Settings"]

DEFAULT_LOOKUP_NGRAM = 3
"""Longest run of ids that prompt lookup looks for, unless max_matching_ngram_size says otherwise."""


@dataclass(frozen=True)
class Call:
    """One call of generate or stream, checked."""

    prompts: Prompts
    config: GenerationConfig
    requests: list[GenerationRequest]
    """One for each prompt."""
    seeds: list[int] | None
    """One for each prompt and returned sequence; None if nothing is drawn."""
    constraint: Constraint | None
    """Rules for the form of each output; None: any text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallOptions:
    """The part of a call that its options decide, without its prompts."""

    config: GenerationConfig
    callbacks: Callbacks
    constraint: Constraint | None
    overflow: Overflow
    context: SlidingContext
    """Which tokens the model sees."""
    reuse_prefix: bool
    lookup: Lookup | None
    num_rows: int
    """Rows of each prompt: beams, or returned sequences."""
    core: dict[int | None, DecodeOptions] = field(default_factory=dict)
    """The core's options by the most new tokens, unless tokens are drawn: then each prompt has seeds of its own."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The limits of a loaded model, and the defaults of its calls."""

    vocab_size: int
    max_length: int
    """Most positions of a row, prompt and output."""
    kv_window: int
    """Most positions that a token sees."""
    tokenizer: Tokenizer | None
    constraints: ConstraintCompiler
    generation_config: GenerationConfig
    overflow: Overflow
    reuse_prefix: bool
    max_batch_size: int | None
    """Most rows of one call; None: no limit."""
    costs: CallCosts
    memory_limit: int | None
    """Bytes that the process may take above `import onnxruntime`; None: no limit."""
    prefix_cache_bytes: int
    """The part of memory_limit that is kept for the prefix cache."""
    reserved: dict[str, int]
    """Bytes of tables that calls share once the first has asked for them, by what they serve."""
    latest: list[CallOptions] = field(default_factory=list, repr=False)
    """The options that were decided last, if they were a config alone: calls in a row share them."""

    def decide(self, inputs: Any, config: Any, options: Mapping[str, Any]) -> Call:
        """Check a call of generate; `inputs`, `config` and `options` are as `EdgeGenerator.generate` takes them.

        Raises:
            InvalidInputError: a prompt or an option is not allowed.
        """
        given = dict(options)
        if inputs is None:
            inputs = given.pop("input_ids", None)
        inputs, padding = take_encoding(inputs, given.pop("attention_mask", None), given)
        inputs = as_arrays(inputs, "inputs")
        masks = CallMasks(
            as_arrays(given.pop("attn_mask", None), "attn_mask"),
            padding_mask(as_arrays(padding, "attention_mask"), inputs),
        )
        return self._call(inputs, masks, self._options(config, given))

    def _options(self, config: Any, given: dict[str, Any]) -> CallOptions:
        """Decide what does not depend on the prompts: once for a config, and for each call that gives options."""
        config = self.generation_config if config is None else GenerationConfig.of(config)
        if given:
            return self._decided(config, given)
        latest = self.latest[0] if self.latest else None
        if latest is None or latest.config is not config:
            latest = self._decided(config, given)
            self.latest[:] = [latest]
        return latest

    def _decided(self, config: GenerationConfig, given: dict[str, Any]) -> CallOptions:
        callbacks = Callbacks.take_from(given)
        overflow = self.overflow.take_from(given)
        reuse_prefix = flag("reuse_prefix", given.pop("reuse_prefix", self.reuse_prefix))
        config = config.updated(**given)
        context = self.sliding_context(overflow if overflow.mode == "slide" else Overflow())
        num_rows = config.num_beams if config.num_beams > 1 else config.num_return_sequences
        return CallOptions(
            config=config,
            callbacks=callbacks,
            constraint=self._constraint(config),
            overflow=overflow,
            context=context,
            reuse_prefix=reuse_prefix,
            lookup=self._lookup(config, context, num_rows),
            num_rows=num_rows,
        )

    def _call(self, inputs: Any, call_masks: CallMasks, options: CallOptions) -> Call:
        """Decide what depends on the prompts."""
        config, context, slides = options.config, options.context, options.overflow.mode == "slide"
        prompts = read_prompts(
            call_masks.without_padding(inputs),
            tokenizer=self.tokenizer,
            vocab_size=self.vocab_size,
            max_length=self.max_length if options.overflow.mode == "error" else None,
        )
        masks = call_masks.of_prompts([len(ids) for ids in prompts.ids])
        if options.overflow.mode == "truncate_prompt":
            prompts, masks = self._cut(prompts, masks, config, options.overflow.keep_tokens)
        self._check_rows(len(prompts.ids), options.num_rows)
        seeds = decide_seeds(config, len(prompts.ids))
        requests = []
        for index, prompt in enumerate(prompts.ids):
            name = f"prompt {index}" if prompts.is_batch else "the prompt"
            mask = masks[index] if masks is not None and masks[index].values is not None else None
            if mask is not None:
                self._check_masked(context.length(len(prompt)), name)
            lookup = options.lookup
            if mask is not None and lookup is not None and lookup.shares_room:
                lookup = None  # a mask's rows for runs of several tokens take up to a byte for each pair of positions
            new_tokens = max_new_tokens(config, len(prompt), None if slides else self.max_length, name)
            total = (
                len(prompt) + new_tokens if new_tokens is not None else config.max_length or self.max_length
            )
            first = index * config.num_return_sequences
            requests.append(
                GenerationRequest(
                    prompt=prompt,
                    options=self._core_options(
                        options, new_tokens, seeds[first : first + config.num_return_sequences]
                    ),
                    vocab_size=self.vocab_size,
                    context=context,
                    slides=slides,
                    positions=min(total, context.positions),
                    num_beams=config.num_beams,
                    num_rows=options.num_rows,
                    mask=mask,
                    lookup=lookup,
                    reuse_prefix=options.reuse_prefix,
                    hooks=partial(options.callbacks.hooks, config, options.constraint, index),
                    needed_bytes=self._needed(options, prompt, total, mask, lookup, name),
                )
            )
        return Call(prompts, config, requests, seeds if config.do_sample else None, options.constraint)

    def _core_options(
        self, options: CallOptions, new_tokens: int | None, seeds: Sequence[int]
    ) -> DecodeOptions:
        """The core's options of a prompt. Those that draw nothing have no seeds, and are shared."""
        draws = options.config.do_sample
        if not draws and (found := options.core.get(new_tokens)) is not None:
            return found
        made = decode_options(
            options.config,
            max_new_tokens=new_tokens,
            seeds=seeds,
            vocab_size=self.vocab_size,
            tokenizer=self.tokenizer,
        )
        if not draws:
            options.core[new_tokens] = made
        return made

    def _constraint(self, config: GenerationConfig) -> Constraint | None:
        """The set of texts that each output may be; None: any.

        What the first such call allocates is kept, so later calls have that much less memory.
        """
        if config.constraint is None:
            return None
        option, _ = config.constraint
        tables = "choices" if option == "choices" else "grammars"
        if tables not in self.reserved:
            held = self._checked(
                self.costs.constraints(option), f"{option} needs tables of the vocabulary", "Leave it out."
            )
            self.reserved[tables] = held
        return self.constraints.constraint_of(config)

    def sliding_context(self, overflow: Overflow) -> SlidingContext:
        """Which tokens the model sees under a way of overflowing."""
        return SlidingContext(self.max_length, self.kv_window, overflow.keep_tokens)

    def scoring_bytes(self, tokens: int) -> int:
        """Bytes that scoring or embedding a text needs.

        Raises:
            InvalidInputError: memory_limit leaves less.
        """
        return self._checked(
            self.costs.scoring(min(tokens, self.max_length)),
            f"the text has {tokens} tokens",
            "Give shorter texts.",
        )

    def choice_bytes(self, prompt: int, longest: int, rows: int) -> int:
        """Bytes that scoring the choices of a prompt needs.

        Args:
            prompt, longest: tokens of the prompt, and of its longest choice.
            rows: choices that are run at once.

        Raises:
            InvalidInputError: more than the positions, or than the memory limit leaves.
        """
        positions = prompt + longest
        if positions > self.max_length:
            raise InvalidInputError(
                f"the text has {prompt} tokens and the longest label {longest}: {positions} positions, but there are "
                f"{self.max_length}. Shorten the text."
            )
        needed = self.costs.request(
            prompt=prompt, positions=positions, rows=1 + rows, tokens=max(rows * longest, 1), slides=False
        )
        what = f"the text has {prompt} tokens and {rows} labels at once"
        return self._checked(needed, what, "Give a shorter text.")

    def holding_bytes(self, tokens: int) -> int:
        """Bytes that a text's keys and values, and a copy of them, need. Raises: as `scoring_bytes`."""
        return self._checked(
            self.costs.holding(tokens), f"the text has {tokens} tokens", "Save a shorter one."
        )

    def _check_masked(self, tokens: int, name: str) -> None:
        if tokens > self.kv_window:
            raise InvalidInputError(
                f"attn_mask speaks of all {tokens} tokens of {name}, but kv_window is {self.kv_window}. Shorten the "
                "prompt, or load the model with a larger kv_window."
            )

    def _lookup(self, config: GenerationConfig, context: SlidingContext, num_rows: int) -> Lookup | None:
        guesses, unasked = config.prompt_lookup_num_tokens, config.prompt_lookup_num_tokens is None
        if unasked:
            guesses = self.costs.common_guesses if num_rows == 1 else 0
        if not guesses:
            return None
        ngram = config.max_matching_ngram_size or DEFAULT_LOOKUP_NGRAM
        return Lookup(min(guesses, context.positions), ngram, shares_room=unasked)

    def _check_rows(self, num_prompts: int, rows_each: int) -> None:
        if self.max_batch_size is not None and num_prompts * rows_each > self.max_batch_size:
            raise InvalidInputError(
                f"{num_prompts} prompts with {rows_each} rows each are {num_prompts * rows_each} rows, but "
                f"max_batch_size is {self.max_batch_size}. Give fewer prompts at once, or load with a larger "
                "max_batch_size."
            )

    def _needed(
        self,
        options: CallOptions,
        prompt: list[int],
        total: int,
        mask: PromptMask | None,
        lookup: Lookup | None,
        name: str,
    ) -> int:
        """Bytes that one prompt takes beside what all share; 0 without a limit, since nobody asks."""
        if self.memory_limit is None:
            return 0
        rows, context = options.num_rows, options.context
        positions = min(total, context.positions)
        seen = min(len(prompt), positions)
        guesses = 0 if lookup is None or lookup.shares_room else lookup.max_guesses
        tokens = max(rows, min(1 + guesses, positions - seen + 1))
        slides = total > context.positions
        shape = {"prompt": seen, "positions": positions, "rows": rows, "tokens": tokens}
        needed = self.costs.request(**shape, slides=slides) + self.costs.choosing(options.config)
        masks = 0
        if mask is not None:
            runs = [(first + count, count) for first, count in mask.chunks(self.costs.max_prefill_chunk)]
            masks = self.costs.masks(
                mask.nbytes,
                runs=runs,
                decode=(positions, tokens),
                rows=rows if slides else 0,
                multi_token=guesses > 0,
            )

        def alone(**changed: int) -> int:
            of_shape = {**shape, **changed}
            return masks + self.costs.alone(**of_shape, slides=slides, config=options.config).peak

        if (total := alone()) > self._memory_left:
            smaller = {
                "fewer beams or returned sequences": {"rows": 1, "tokens": min(tokens, 1 + guesses)},
                "fewer guesses": {"tokens": rows},
                "fewer new tokens": {
                    "positions": min(seen + 1, positions),
                    "tokens": max(rows, min(tokens, 2)),
                },
                "a shorter prompt": {"prompt": 1, "positions": positions - seen + 1},
            }
            helps = [what for what, changed in smaller.items() if alone(**changed) <= self._memory_left]
            raise self._too_much(
                total,
                f"{name} and its output have {positions} positions in {rows} row(s)",
                f"Give {', or '.join(helps)}." if helps else "Load the model with a larger one.",
            )
        return needed + masks

    @property
    def _memory_left(self) -> float:
        """Bytes of memory_limit that calls and the model may take."""
        if self.memory_limit is None:
            return math.inf
        return self.memory_limit - self.prefix_cache_bytes - sum(self.reserved.values())

    def _too_much(self, total: int, what: str, remedy: str) -> InvalidInputError:
        """The error of a call that takes `total` bytes together with the model."""
        assert self.memory_limit is not None
        total += self.memory_limit - int(self._memory_left)
        return InvalidInputError(
            f"{what}: this call needs {total / MIB:.1f} MiB, but memory_limit_mb is {self.memory_limit / MIB:g}. "
            f"{remedy}"
        )

    def _checked(self, needed: int, what: str, remedy: str) -> int:
        total = needed + self.costs.shared
        if total > self._memory_left:
            raise self._too_much(total, what, remedy)
        return needed

    def _cut(
        self, prompts: Prompts, masks: list[PromptMask] | None, config: GenerationConfig, keep_tokens: int
    ) -> tuple[Prompts, list[PromptMask] | None]:
        """The prompts, and their masks, with so much cut out that the output fits."""
        positions = min(self.max_length, config.max_length or self.max_length)
        new_tokens = config.max_new_tokens
        if new_tokens is None:
            new_tokens = max(min(DEFAULT_MAX_NEW_TOKENS, positions // 2), config.min_new_tokens or 0)
        else:
            positions = self.max_length
        kept = [
            cut_prompt(
                list(range(len(prompt))),
                new_tokens=new_tokens,
                positions=positions,
                window=self.kv_window,
                keep_tokens=keep_tokens,
            )
            for prompt in prompts.ids
        ]
        ids = [[prompt[at] for at in places] for prompt, places in zip(prompts.ids, kept, strict=True)]
        truncated = [len(old) - len(new) for old, new in zip(prompts.ids, ids, strict=True)]
        if masks is not None:
            masks = [
                mask.of_kept(places) if cut else mask
                for mask, places, cut in zip(masks, kept, truncated, strict=True)
            ]
        return Prompts(ids, truncated, prompts.is_batch), masks
