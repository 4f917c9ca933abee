"""Run: one call of generate or stream, from checked prompts to the result."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .._core import DecodeState
from ..engine._decode import DecodeLoop, GraphRunner, LookupRunner
from ..engine.decoder import Decoder
from ..engine.masked_runner import MaskedRunner
from ..engine.prefix_cache import common_prefix
from ..engine.sliding import RerunInterrupted, SlidingRunner
from ..options.generation_config import GenerationConfig
from ..options.overflow import SlidingContext
from ..text.streaming import StreamedToken, TextStream
from ..text.tokenizer import Tokenizer
from .attention_masks import PromptMask
from .callbacks import Callbacks
from .prompts import Prompts
from .result import GenerationResult, Timings

if TYPE_CHECKING:
    from ..engine._decode import Backend

__all__ = ["DEFAULT_LOOKUP_NGRAM", "Run"]

DEFAULT_LOOKUP_NGRAM = 2
"""Longest run of ids that prompt lookup looks for, unless max_matching_ngram_size says otherwise."""


class Run:
    """Drives a DecodeState over a Decoder and keeps the time.

    Args:
        context: which tokens of a row the model sees.
        slides: whether rows go on when their positions end; else the options keep them from it.
        reuse_prefix: whether a prompt may continue from what the session remembers.
        started: `time.perf_counter()` when the caller called.
        masks: what the tokens of each prompt may see; None: what stands before them.
    """

    def __init__(
        self,
        session: Decoder,
        state: DecodeState,
        config: GenerationConfig,
        prompts: Prompts,
        callbacks: Callbacks,
        tokenizer: Tokenizer | None,
        *,
        context: SlidingContext,
        slides: bool,
        reuse_prefix: bool,
        started: float,
        masks: list[PromptMask] | None = None,
    ) -> None:
        self.state, self.config, self.prompts = state, config, prompts
        self._session, self._tokenizer, self._started = session, tokenizer, started
        self._context, self._reuse_prefix = context, reuse_prefix
        self._contexts = [context.of(ids) for ids in prompts.ids]
        backend: GraphRunner | LookupRunner | MaskedRunner = session.runner
        if masks is not None:
            backend = session.masked_runner  # it guesses nothing: what is chosen is the same
        elif config.prompt_lookup_num_tokens is not None:
            backend = LookupRunner(
                session.runner,
                max_guesses=min(config.prompt_lookup_num_tokens, context.positions),
                max_ngram=config.max_matching_ngram_size or DEFAULT_LOOKUP_NGRAM,
                max_positions=context.positions,
            )
        self._slider = None
        if slides:
            # A search whose beams cannot go on has no best one yet, so beams finish their rerun.
            self._slider = SlidingRunner(backend, self._rerun, context, interruptible=config.num_beams == 1)
        self._masks = masks
        steps: Backend = self._slider or backend
        self._loop = DecodeLoop(state, steps, **callbacks.hooks())
        self._prefill_was_interrupted = False
        self._prefill_seconds = 0.0
        self._first_token_at = 0.0
        self._ended_at = 0.0

    def to_end(self) -> None:
        """Generate until every row has ended."""
        for _ in self._steps():
            pass

    def stream(self) -> Generator[StreamedToken]:
        """Generate one row; yield each token once it is certain. With beams that is what all of them share."""
        text = self._text_stream()
        index = 0
        with closing(self._steps()) as steps:
            for _ in steps:
                for token, reason in self._certain_since(index):
                    piece = text.push(token) if text else ""
                    if reason and text:
                        piece += text.flush(reason)
                    yield StreamedToken(text=piece, token_id=token, index=index, finish_reason=reason)
                    index += 1

    def _certain_since(self, index: int) -> list[tuple[int, str]]:
        """(token, finish reason) of the only output's certain tokens from `index` on."""
        if self.config.num_beams == 1:
            return [(token, reason) for _, token, reason in self.state.last_tokens()]
        tokens = self.state.certain_tokens(0)
        if not self.state.finished:  # keep one back, to tell the reason with the last one
            return [(token, "") for token in tokens[index:-1]]
        return [*((token, "") for token in tokens[index:-1]), (tokens[-1], self.state.finish_reasons()[0])]

    def result(self) -> GenerationResult:
        """What the finished run gave."""
        sequences, reasons = self._outputs()
        rows_each = self.config.num_return_sequences
        prompt_lengths = [len(self.prompts.ids[row // rows_each]) for row in range(len(sequences))]
        lengths = [len(ids) for ids in sequences]
        padded = np.full((len(sequences), max(lengths)), self.config.padding_token_id, np.int64)
        for row, ids in enumerate(sequences):
            padded[row, : len(ids)] = ids
        generated = [ids[start:] for ids, start in zip(sequences, prompt_lengths, strict=True)]
        texts = None
        if self._tokenizer is not None:
            texts = [self._text(ids, reason) for ids, reason in zip(generated, reasons, strict=True)]
        scores = None
        if self.config.output_scores and not self._prefill_was_interrupted:
            scores = [np.asarray(row, np.float32) for row in self.state.scores()]
        num_generated = sum(len(ids) for ids in generated)
        slider = self._slider
        return GenerationResult(
            texts=texts,
            sequences=padded,
            prompt_lengths=prompt_lengths,
            truncated_tokens=[self.prompts.truncated[row // rows_each] for row in range(len(sequences))],
            lengths=lengths,
            finish_reasons=reasons,
            sequences_scores=self._sequences_scores(),
            scores=scores,
            timings=Timings(
                prefill_tokens=sum(map(len, self._contexts)) - self._session.reused_tokens,
                reused_tokens=self._session.reused_tokens,
                prefill_seconds=self._prefill_seconds,
                decode_tokens=max(num_generated - len(sequences), 0),
                decode_seconds=self._ended_at - self._first_token_at,
                time_to_first_token=self._first_token_at - self._started,
                reruns=slider.reruns if slider else 0,
                rerun_tokens=slider.rerun_tokens if slider else 0,
                rerun_seconds=slider.rerun_seconds if slider else 0.0,
            ),
        )

    def _steps(self) -> Generator[None]:
        """Prefill, then yield after every choice of tokens."""
        prefill_started = time.perf_counter()
        complete = self._prefill()
        self._first_token_at = self._ended_at = time.perf_counter()
        self._prefill_seconds = self._first_token_at - prefill_started
        if not complete:
            self._prefill_was_interrupted = True
            return
        ended = self._loop.select()
        self._first_token_at = time.perf_counter()
        try:
            yield
            while not ended:
                self._loop.compute()
                ended = self._loop.select()
                yield
        except RerunInterrupted:
            self._ended_at = time.perf_counter()
            return
        except GeneratorExit:  # between two steps: the caller wants no more
            self._remember()
            raise
        self._ended_at = time.perf_counter()
        self._remember()

    def _remember(self) -> None:
        """Tell the session what its first row holds, for a later prompt that begins alike."""
        if self._masks is not None:
            return  # a mask is part of what its keys and values come from
        text, slid = self._session.text, self._slider is not None and self._slider.reruns > 0
        if len(self._contexts) == 1 and self.config.num_beams == 1 and self.config.num_return_sequences == 1:
            text.remember(self._context.of(self.state.sequences()[0][:-1]))  # the last one never ran
        elif not slid:  # every row continues what the prompts have in common, whichever is first now
            head = self._contexts[0]
            for prompt in self._contexts[1:]:
                head = head[: common_prefix(head, prompt)]
            text.remember(head)

    def _rerun(self, row: int, tokens: list[int], kept: list[int], state: DecodeState | None) -> bool:
        """Run what a row keeps of its text from position 0."""
        if self._masks is None:
            return self._session.rerun(row, tokens, state)
        return self._session.masked_runner.rerun(row, tokens, kept, self._session.masked_chunk, state)

    def _prefill(self) -> bool:
        if self._masks is not None:
            masks = [
                mask if len(context) == mask.length else mask.of_kept(self._context.of(range(mask.length)))
                for mask, context in zip(self._masks, self._contexts, strict=True)
            ]
            return self._session.prefill_masked(self._contexts, masks, self.state, self._masks)
        return self._session.prefill(self._contexts, self.state, reuse_prefix=self._reuse_prefix)

    def _outputs(self) -> tuple[list[list[int]], list[str]]:
        """Ids and finish reason of each output row."""
        if not self._prefill_was_interrupted:
            reasons = [reason or self.state.interruption() for reason in self.state.finish_reasons()]
            return self.state.sequences(), reasons
        rows = [list(ids) for ids in self.prompts.ids for _ in range(self.config.num_return_sequences)]
        return rows, [self.state.interruption()] * len(rows)

    def _sequences_scores(self) -> NDArray[np.float32] | None:
        if self.config.num_beams == 1 or self._prefill_was_interrupted:
            return None
        return np.asarray(self.state.sequences_scores(), np.float32)

    def _text_stream(self) -> TextStream | None:
        if self._tokenizer is None:
            return None
        shown = self.config.include_stop_string
        return TextStream(self._tokenizer, stop_strings=() if shown else self.config.stop_texts)

    def _text(self, ids: list[int], reason: str) -> str:
        stream = self._text_stream()
        assert stream is not None
        return "".join([*map(stream.push, ids), stream.flush(reason)])
