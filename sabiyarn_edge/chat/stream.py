"""ChatStream and AsyncChatStream: an answer as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..calls.one_reader import OneReader
from ..calls.stream import TokenStream
from ..options.generation_config import GenerationConfig
from .answer import ChatDelta
from .prompt import ChatPrompt
from .result import Answer, ChatReader, ChatResult

if TYPE_CHECKING:
    from ..calls.asynchronous import AsyncTokenStream
    from ..calls.result import GenerationResult

__all__ = ["AsyncChatStream", "ChatStream"]


class _Reading(OneReader):
    """What both kinds of stream do with tokens."""

    def __init__(self, prompt: ChatPrompt, config: GenerationConfig) -> None:
        self._prompt, self._reader = prompt, ChatReader(prompt, config)
        self._answer = Answer()

    @property
    def left_out_messages(self) -> int:
        """Messages that did not fit into the prompt."""
        return self._prompt.left_out_messages

    def _take(self, token: int, finish_reason: str) -> ChatDelta:
        delta = self._reader.push(token, finish_reason)
        self._answer.add(delta)
        return delta

    def _finish(self, result: GenerationResult | None) -> tuple[ChatDelta, ChatResult]:
        """The rest, where no token said that it was the last, and all of it."""
        reason = "cancelled" if result is None else result.finish_reasons[0]
        rest = self._reader.finish(reason)
        self._answer.add(rest)
        left_out = self._prompt.left_out_messages
        return rest, ChatResult(**vars(self._answer), left_out_messages=left_out, result=result)


class ChatStream(_Reading):
    """Iterates over the ChatDeltas of one answer; `result` is there once it has ended.

    Closing it, or leaving its `with` block, ends the generation; what was read so far is the result then.

    Args:
        tokens: the generation.
        on_end: told the result.
    """

    def __init__(
        self,
        prompt: ChatPrompt,
        config: GenerationConfig,
        tokens: TokenStream,
        on_end: Callable[[ChatResult], None] | None = None,
    ) -> None:
        super().__init__(prompt, config)
        self._tokens, self._on_end = tokens, on_end
        self.result: ChatResult | None = None
        """The ChatResult after the last delta, or after closing; None before."""

    def __iter__(self) -> ChatStream:
        return self

    def __next__(self) -> ChatDelta:
        for token in self._tokens:
            delta = self._take(token.token_id, token.finish_reason)
            if delta:
                return delta
        if rest := self._end():
            return rest
        raise StopIteration

    def close(self) -> None:
        """End the generation now."""
        self._tokens.close()
        self._end()

    def _end(self) -> ChatDelta:
        if self.result is not None:
            return ChatDelta()
        rest, self.result = self._finish(self._tokens.result)
        if self._on_end is not None:
            self._on_end(self.result)
        return rest

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncChatStream(_Reading):
    """As ChatStream, for `async for`.

    Leaving the loop early leaves the generation running until the stream is closed (`await stream.aclose()`, or
    `async with`) or dropped.
    """

    def __init__(self, prompt: ChatPrompt, config: GenerationConfig, tokens: AsyncTokenStream) -> None:
        super().__init__(prompt, config)
        self._tokens = tokens
        self.result: ChatResult | None = None
        """The ChatResult after the last delta, or after closing; None before."""

    def __aiter__(self) -> AsyncChatStream:
        return self

    async def __anext__(self) -> ChatDelta:
        async for token in self._tokens:
            delta = self._take(token.token_id, token.finish_reason)
            if delta:
                return delta
        if rest := self._end():
            return rest
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the generation now."""
        await self._tokens.aclose()
        self._end()

    def _end(self) -> ChatDelta:
        if self.result is not None:
            return ChatDelta()
        rest, self.result = self._finish(self._tokens.result)
        return rest

    async def __aenter__(self) -> AsyncChatStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
