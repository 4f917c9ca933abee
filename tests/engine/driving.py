"""Drives an engine's works from a test, without text and without a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from sabiyarn_edge._core import DecodeOptions
from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.engine.generation import Generation, GenerationRequest
from sabiyarn_edge.engine.prefix_cache import PrefixCache
from sabiyarn_edge.engine.rows import Rows
from sabiyarn_edge.engine.scheduler import Scheduler
from sabiyarn_edge.engine.work import Work
from sabiyarn_edge.options.overflow import SlidingContext


class Driver:
    """A scheduler on a decoder of its own, stepped by hand.

    Args:
        step_by_step: have each step return after one run of the graph.
    """

    def __init__(self, decoder: Decoder, prefix_cache_bytes: int = 0, *, step_by_step: bool = False) -> None:
        self.decoder = decoder
        self.rows = Rows(decoder.kv_cache, PrefixCache(prefix_cache_bytes))
        self.scheduler = Scheduler(decoder, self.rows)
        self.scheduler.called = step_by_step

    def request(self, prompt: Sequence[int], new_tokens: int, **options: Any) -> GenerationRequest:
        """A request for a prompt; `options` are GenerationRequest's, and those of DecodeOptions under `decode`."""
        shape = self.decoder.config.gptjx
        decode = {"max_new_tokens": new_tokens, **options.pop("decode", {})}
        return GenerationRequest(
            **{
                "prompt": list(prompt),
                "options": DecodeOptions(**decode),
                "vocab_size": shape.vocab_size,
                "context": SlidingContext(shape.block_size, self.decoder.window),
                "slides": False,
                "positions": len(prompt) + new_tokens,
                "num_beams": decode.get("num_beams", 1),
                **options,
            }
        )

    def run(self, works: Sequence[Work], between: Callable[[], object] = lambda: None) -> None:
        """Run works to their end; `between` is called between steps."""
        self.scheduler.add(works)
        while not self.scheduler.idle:
            self.scheduler.step()
            between()
        for work in works:
            if work.error is not None:
                raise work.error

    def generate(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, **options: Any
    ) -> tuple[list[list[int]], list[np.ndarray]]:
        """Sequences of all prompts' outputs, and for each prompt the logits [steps, vocab] of its first row."""
        seen: list[list[np.ndarray]] = [[] for _ in prompts]
        generations = [
            Generation(
                self.request(
                    prompt,
                    new_tokens,
                    hooks=partial(dict, after_scores=lambda _, scores, own=own: own.append(scores[0].copy())),
                    **options,
                )
            )
            for prompt, own in zip(prompts, seen, strict=True)
        ]
        for generation in generations:
            generation.group = self
        self.run(generations)
        sequences = [ids for generation in generations for ids in generation.state.sequences()]
        return sequences, [np.array(own) for own in seen]
