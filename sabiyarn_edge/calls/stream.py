"""TokenStream: the tokens of one generation as they come, for a reader who may be slow, or go away."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from ..engine.engine import Engine
from ..engine.generation import Generation
from ..engine.work import SIGNAL_SECONDS
from ..errors import InvalidInputError
from ..text.streaming import StreamedToken
from ..text.tokenizer import Tokenizer
from .one_reader import OneReader
from .outcome import result_of, text_stream
from .request import Call
from .result import GenerationResult

__all__ = ["StreamedText", "TokenBuffer", "TokenStream"]


class TokenBuffer:
    """Tokens between the engine, which never waits, and a reader."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._tokens: deque[tuple[int, str]] = deque()
        self._ended = False

    def put(self, tokens: Sequence[tuple[int, str]]) -> None:
        """Add (token, finish reason) pairs."""
        with self._changed:
            self._tokens.extend(tokens)
            self._changed.notify()

    def end(self) -> None:
        """Say that no more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def is_spent(self) -> bool:
        """True once every token was read and no more will come."""
        with self._changed:
            return self._ended and not self._tokens

    def get(self) -> tuple[int, str] | None:
        """The next pair, waiting for it; None at the end."""
        with self._changed:
            while not self._tokens and not self._ended:
                self._changed.wait(SIGNAL_SECONDS)
            return self._tokens.popleft() if self._tokens else None


class Reading(Protocol):
    """Told what is read of a stream: the session whose text it continues."""

    def extend(self, token: int) -> None:
        """Take the next token that was read."""

    def hold(self, tokens: list[int]) -> None:
        """Take the tokens whose keys and values are still held at the end."""


class StreamedText:
    """Makes StreamedTokens, and in the end the result, of what one generation tells."""

    def __init__(self, call: Call, tokenizer: Tokenizer | None, started: float) -> None:
        self._call, self._tokenizer, self._started = call, tokenizer, started
        self._text = text_stream(call.config, tokenizer) if tokenizer is not None else None
        self._index = 0

    def token(self, token: int, reason: str) -> StreamedToken:
        """The next token, with the text that became final with it."""
        text = ""
        if self._text is not None:
            text = self._text.push(token) + (self._text.flush(reason) if reason else "")
        self._index += 1
        return StreamedToken(text=text, token_id=token, index=self._index - 1, finish_reason=reason)

    def result(self, generation: Generation) -> GenerationResult:
        """The result of a generation that has ended."""
        return result_of(self._call, [generation], self._tokenizer, self._started)


class TokenStream(OneReader):
    """Iterates over the tokens of one generation; `result` is there once it has ended.

    The engine does not wait for the reader. Closing the stream, leaving its `with` block or dropping it ends the
    generation within a step. It belongs to the process that opened it: a forked child is refused its tokens.

    Args:
        session: told the tokens that are read; or None.
    """

    _closed = True  # until it is built: __del__ comes to half-built ones too

    def __init__(
        self,
        engine: Engine,
        generation: Generation,
        buffer: TokenBuffer,
        text: StreamedText,
        session: Reading | None = None,
    ) -> None:
        self._engine, self._generation, self._buffer, self._text = engine, generation, buffer, text
        self._session = session
        self._reading = threading.Lock()
        self._closed = False
        self._refusal = ""
        self.result: GenerationResult | None = None
        """The GenerationResult after the last token; None before, and if the stream was closed early."""

    def __iter__(self) -> TokenStream:
        return self

    def __next__(self) -> StreamedToken:
        if not self._closed:
            self._generation.check_process()  # before any lock, which a thread of the parent may have held
        with self._reading:
            if self._closed:
                if self._refusal:
                    raise InvalidInputError(self._refusal)
                raise StopIteration
            try:
                found = self._buffer.get()
            except BaseException:  # Ctrl-C: nobody reads on
                self._end()
                raise
            if found is None:
                self._finish()
                raise StopIteration
            if self._session is not None:
                self._session.extend(found[0])
            return self._text.token(*found)

    def close(self) -> None:
        """End the generation now."""
        if not self._closed:
            self._end()

    def supersede(self, refusal: str) -> None:
        """Close the stream for another one, if it is open.

        Args:
            refusal: the error of whoever reads on although there was more to read.
        """
        if self._closed:
            return
        if self._buffer.is_spent and self._generation.error is None:
            self._finish()
            return
        self._refusal = refusal
        self._end()

    def _finish(self) -> None:
        """The last token was read."""
        self._closed = True
        self._generation.wait()
        self._hold()
        self._generation.raise_error()
        self.result = self._text.result(self._generation)

    def _end(self) -> None:
        self._closed = True
        self._engine.abandon([self._generation])
        self._hold()

    def _hold(self) -> None:
        if self._session is not None:
            self._session.hold(self._generation.held)

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            self._generation.abandon()
