"""Generating: the calls of a generator that one request comes to, as a whole or streamed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..calls.decode_options import decide_seeds
from ..calls.result import GenerationResult
from ..errors import InvalidInputError
from ..options.generation_config import GenerationConfig
from .body import check_texts
from .logprobs import LogprobReader, TokenLogprobs
from .service import ServedModel, Service
from .usage import Usage

if TYPE_CHECKING:
    from ..calls.asynchronous import AsyncTokenStream
    from ..calls.request import Call

__all__ = ["Choice", "Generating", "Piece"]


@dataclass(frozen=True)
class Choice:
    """One finished output."""

    index: int
    text: str
    tokens: list[int]
    reason: str
    """As GenerationResult.finish_reasons."""
    logprobs: list[TokenLogprobs] | None


@dataclass(frozen=True)
class Piece:
    """What one token adds to an output."""

    index: int
    text: str
    token: int | None
    """None if the end came between two tokens."""
    reason: str
    """"" but at its end."""
    logprobs: list[TokenLogprobs] | None


@dataclass(frozen=True)
class _Call:
    prompts: list[list[int]]
    config: GenerationConfig
    reader: LogprobReader | None
    first: int
    """Index of its first choice."""


class Generating:
    """One request. Choices are numbered prompt by prompt, num_return_sequences of each.

    A request is one call of the generator, so that it gives exactly what the same call gives without a server. Streams,
    and requests for log-probabilities, take a call for each choice, with the seed that it would have in the one call.

    Args:
        prompts: token ids.
        config: the options; num_return_sequences is the number of choices.
        call_options: further options of generate().
        num_top: how many of the likeliest tokens are wanted with log-probabilities; None: none, and no others.
        streams: whether pieces() will be called, or else choices().

    Raises:
        InvalidInputError: what is asked for together is not possible.
        HttpError: there are too many choices.
    """

    def __init__(
        self,
        service: Service,
        model: ServedModel,
        prompts: Sequence[list[int]],
        config: GenerationConfig,
        call_options: dict[str, Any],
        *,
        num_top: int | None,
        streams: bool,
    ) -> None:
        self._service, self._model, self._options = service, model, call_options
        self._metrics = service.metrics
        self.prompts, self.config = prompts, config
        self._returns = returns = config.num_return_sequences
        self.usage = Usage(sum(map(len, prompts)))
        self.num_choices = len(prompts) * returns
        check_texts("prompt", self.num_choices, "texts, times n")
        if num_top is not None and config.num_beams > 1:
            raise InvalidInputError(
                f"logprobs is given and num_beams is {config.num_beams}: beams change places while they are "
                "searched. Leave out one of them."
            )
        if streams and config.num_beams > 1 and returns > 1:
            raise InvalidInputError(
                f"stream is true, n is {returns} and num_beams is {config.num_beams}: the best beams are known at the "
                "end only. Leave out one of them."
            )
        self._calls = [_Call(list(prompts), config, None, 0)]
        if streams or num_top is not None:
            seeds = decide_seeds(config, len(prompts))
            self._calls = [
                _Call(
                    [prompts[index // returns]],
                    config.updated(num_return_sequences=1, seed=seeds[index]),
                    None if num_top is None else LogprobReader(num_top),
                    index,
                )
                for index in range(self.num_choices)
            ]
        self._rows = len(prompts) * max(config.num_beams, returns)
        self._leave: Callable[[], None] = lambda: None
        self._waited = False  # for a row
        self._decided: list[Call] = []
        self._streams: list[AsyncTokenStream] = []

    async def begin(self) -> None:
        """Take the rows, and check all calls, beside the event loop; close() must follow.

        Raises:
            InvalidInputError: a prompt or an option is not allowed.
            HttpError: there is no room, or the request's time is over.
        """
        param = "num_beams" if self.config.num_beams > 1 else "n" if self._returns > 1 else "prompt"
        self._leave = self._model.admit(self._rows, self._metrics, param)
        self._waited = self._model.is_full
        self._started = time.perf_counter()
        self.end = self._service.end_of_time()
        compiles = not self._model.generator._has_compiled(self.config)
        self._decided = await self._service.prepare(self._decide, compiles=compiles)

    def _decide(self) -> list[Call]:
        decide = self._model.generator._decide
        return [
            decide(
                call.prompts if len(call.prompts) > 1 else call.prompts[0],
                call.config,
                {**self._options, **(call.reader.options if call.reader else {})},
            )
            for call in self._calls
        ]

    async def choices(self) -> list[Choice]:
        """Generate, and give all choices. Cancelling the task ends it; close() must follow."""
        results = await _all([self._model.generator._arun(call, self._started) for call in self._decided])
        found = []
        for call, result in zip(self._calls, results, strict=True):
            self.usage.generated += sum(map(len, result.generated))
            self._count(call, result)
            texts = _texts(result)
            found += [
                Choice(call.first + i, text, tokens, reason, call.reader.tokens if call.reader else None)
                for i, (text, tokens, reason) in enumerate(
                    zip(texts, result.generated, result.finish_reasons, strict=True)
                )
            ]
        self._metrics.generated_tokens[self._model.name] += self.usage.generated
        self._check_begun()
        return found

    def open(self) -> None:
        """Begin the streams."""
        self._streams = [self._model.generator._aopen(call, self._started) for call in self._decided]

    def close(self) -> None:
        """End what still runs, within a step, and free the rows; where all has ended there is nothing to do."""
        for stream in self._streams:
            stream.close()
        self._leave()

    async def pieces(self) -> AsyncIterator[Piece]:
        """The pieces of all choices as they come.

        Raises:
            Exception: what ended one of the choices.
        """
        arrived: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        reading = [
            asyncio.create_task(self._read(call, stream, arrived.put_nowait))
            for call, stream in zip(self._calls, self._streams, strict=True)
        ]
        try:
            left = len(reading)
            while left:
                piece = await arrived.get()
                if isinstance(piece, Exception):
                    raise piece
                left -= bool(piece.reason)
                yield piece
        finally:
            for task in reading:
                task.cancel()
            self.close()

    async def _read(
        self, call: _Call, stream: AsyncTokenStream, put: Callable[[Piece | Exception], None]
    ) -> None:
        """Hand one stream's pieces over; the last one has a reason."""
        reason, shown = "", 0
        try:
            async for token in stream:
                reason, shown = token.finish_reason, shown + len(token.text)
                self.usage.generated += 1
                self._metrics.generated_tokens[self._model.name] += 1
                logprobs = [call.reader.tokens[token.index]] if call.reader else None
                piece = Piece(call.first, token.text, token.token_id, reason, logprobs)
                if not reason:
                    put(piece)
                else:
                    last = piece
            assert stream.result is not None
            self._count(call, stream.result)
            self._check_begun()
            if not reason:  # cancelled, or out of time, between two tokens
                rest = _texts(stream.result)[0][shown:]
                last = Piece(call.first, rest, None, stream.result.finish_reasons[0], None)
            put(last)
        except Exception as error:
            put(error)

    def _count(self, call: _Call, result: GenerationResult) -> None:
        """Note what a call took."""
        # The prompt of a prompt's later choices is counted with its first.
        prompt = sum(map(len, call.prompts)) if call.first % self._returns == 0 else None
        self.usage.count(result, prompt, self._metrics, self._model.name)

    def _check_begun(self) -> None:
        max_time = self.config.max_time
        own_limit = not self._waited and max_time is not None and max_time < self._service.settings.timeout
        self.usage.check_begun(own_limit=own_limit)


def _texts(result: GenerationResult) -> list[str]:
    assert result.texts is not None  # models without a tokenizer are not served
    return result.texts


async def _all(calls: Sequence[Coroutine[Any, Any, GenerationResult]]) -> list[GenerationResult]:
    """Await all; the first error cancels the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
