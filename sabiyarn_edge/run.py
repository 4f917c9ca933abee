"""Run: one call of generate or stream, from checked prompts to the result."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from ._core import DecodeState
from ._decode import DecodeLoop
from .callbacks import Callbacks
from .generation_config import GenerationConfig
from .prompts import Prompts
from .result import GenerationResult, Timings
from .session import DecoderSession
from .streaming import StreamedToken, TextStream
from .tokenizer import Tokenizer

__all__ = ["Run"]


class Run:
    """Drives a DecodeState over a DecoderSession and keeps the time.

    Args:
        started: `time.perf_counter()` when the caller called.
    """

    def __init__(
        self,
        session: DecoderSession,
        state: DecodeState,
        config: GenerationConfig,
        prompts: Prompts,
        callbacks: Callbacks,
        tokenizer: Tokenizer | None,
        started: float,
    ) -> None:
        self.state, self.config, self.prompts = state, config, prompts
        self._session, self._tokenizer, self._started = session, tokenizer, started
        self._loop = DecodeLoop(state, session.runner, **callbacks.hooks())
        self._prefill_seconds = 0.0
        self._first_token_at = 0.0
        self._ended_at = 0.0

    def to_end(self) -> None:
        """Generate until every row has ended."""
        for _ in self._steps():
            pass

    def stream(self) -> Iterator[StreamedToken]:
        """Generate one row; yield each token once it is certain."""
        text = self._text_stream()
        index = 0
        for _ in self._steps():
            for _, token, reason in self.state.last_tokens():
                piece = text.push(token) if text else ""
                if reason and text:
                    piece += text.flush(reason)
                yield StreamedToken(text=piece, token_id=token, index=index, finish_reason=reason)
                index += 1

    def result(self) -> GenerationResult:
        """What the finished run gave."""
        sequences = self.state.sequences()
        rows_each = self.config.num_return_sequences
        prompt_lengths = [len(self.prompts.ids[row // rows_each]) for row in range(len(sequences))]
        lengths = [len(ids) for ids in sequences]
        padded = np.full((len(sequences), max(lengths)), self.config.padding_token_id, np.int64)
        for row, ids in enumerate(sequences):
            padded[row, : len(ids)] = ids
        reasons = self.state.finish_reasons()
        generated = [ids[start:] for ids, start in zip(sequences, prompt_lengths, strict=True)]
        texts = None
        if self._tokenizer is not None:
            texts = [self._text(ids, reason) for ids, reason in zip(generated, reasons, strict=True)]
        scores = None
        if self.config.output_scores:
            scores = [np.asarray(row, np.float32) for row in self.state.scores()]
        num_generated = sum(len(ids) for ids in generated)
        return GenerationResult(
            texts=texts,
            sequences=padded,
            prompt_lengths=prompt_lengths,
            lengths=lengths,
            finish_reasons=reasons,
            sequences_scores=None,
            scores=scores,
            timings=Timings(
                prefill_tokens=sum(len(ids) for ids in self.prompts.ids),
                prefill_seconds=self._prefill_seconds,
                decode_tokens=num_generated - len(sequences),
                decode_seconds=self._ended_at - self._first_token_at,
                time_to_first_token=self._first_token_at - self._started,
            ),
        )

    def _steps(self) -> Iterator[None]:
        """Prefill, then yield after every choice of tokens."""
        prefill_started = time.perf_counter()
        self._session.prefill(self.prompts.ids)
        self._prefill_seconds = time.perf_counter() - prefill_started
        ended = self._loop.select()
        self._first_token_at = time.perf_counter()
        yield
        while not ended:
            self._loop.compute()
            ended = self._loop.select()
            yield
        self._ended_at = time.perf_counter()

    def _text_stream(self) -> TextStream | None:
        if self._tokenizer is None:
            return None
        shown = self.config.include_stop_string
        return TextStream(self._tokenizer, stop_strings=() if shown else self.config.stop_texts)

    def _text(self, ids: list[int], reason: str) -> str:
        stream = self._text_stream()
        assert stream is not None
        return "".join([*map(stream.push, ids), stream.flush(reason)])
