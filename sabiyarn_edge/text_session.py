"""Session: a text that grows turn by turn, is forked, cut, saved and loaded, and of which nothing is computed twice."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from .calls.prompts import is_nothing, read_prompt
from .calls.result import GenerationResult
from .calls.stream import TokenStream
from .engine.prefix_cache import PrefixPin, common_prefix
from .model_folder.config import ModelConfig
from .options.checks import integer
from .options.checks import path as check_path
from .options.checks import text as check_text
from .options.generation_config import GenerationConfig
from .text.tokenizer import Tokenizer

__all__ = ["Session"]

_WENT_ON = (
    "this stream has ended early: its session went on with another turn. What was read of it belongs to the text. Read "
    "a stream to its end, or close it, before the next turn."
)


class SessionGenerator(Protocol):
    """The part of EdgeGenerator that a session uses."""

    tokenizer: Tokenizer | None

    @property
    def config(self) -> ModelConfig: ...

    def _generate(
        self, inputs: Any, config: GenerationConfig | None, options: dict[str, Any], pin: PrefixPin
    ) -> GenerationResult: ...

    def _stream(
        self, inputs: Any, config: GenerationConfig | None, options: dict[str, Any], session: Session
    ) -> TokenStream: ...

    def _pin(self, tokens: Sequence[int]) -> PrefixPin: ...

    def _save_session(self, path: Path, tokens: Sequence[int], pin: PrefixPin, attachment: str) -> None: ...


class Session:
    """The tokens of one text, made by `EdgeGenerator.session`.

    The generator's KV cache holds one text at a time. What it holds of this one is kept aside when another text comes,
    for as long as this object lives, and sessions share what they have in common. Whatever is missing is computed
    again, so results never depend on it. A stream that is still open ends when anything else is done to the text: its
    next token is an InvalidInputError. For one thread at a time.
    """

    def __init__(
        self, generator: SessionGenerator, tokens: Sequence[int], pin: PrefixPin, attachment: str = ""
    ) -> None:
        self._generator = generator
        self._tokens = list(tokens)
        self._pin = pin
        self._open_stream: weakref.ref[TokenStream] | None = None
        self.attachment = attachment
        """What save() was given to keep beside the text, if the session was loaded from a file."""

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle begins with: the text; an open stream stays the original's."""
        return {**vars(self), "_tokens": list(self._tokens), "_open_stream": None}

    @property
    def tokens(self) -> list[int]:
        """Ids of the text so far."""
        return list(self._tokens)

    @property
    def text(self) -> str | None:
        """The text so far; None without a tokenizer."""
        tokenizer = self._generator.tokenizer
        return None if tokenizer is None else tokenizer.decode(self._tokens)

    def append(self, inputs: str | Sequence[int]) -> None:
        """Add a string or ids to the text; they are computed with the next generate().

        Raises:
            InvalidInputError: ids outside the vocabulary, or a string and no tokenizer.
        """
        appended = self._with(inputs)
        self._end_stream()
        self._tokens = appended
        pinned = self._pin.tokens
        if common_prefix(pinned, self._tokens) == len(
            pinned
        ):  # else the text has slid, and lost its beginning
            self._pin.tokens = list(self._tokens)

    def generate(
        self,
        inputs: str | Sequence[int] = "",
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> GenerationResult:
        """Add `inputs` to the text and generate its continuation, which then belongs to it.

        With several returned sequences none of them is added: append() the one you choose.

        Args:
            inputs: a string or ids; nothing: go on with the text as it is.
            generation_config, options: as `EdgeGenerator.generate` takes them.

        Returns:
            GenerationResult, whose prompt is the whole text.

        Raises: as `EdgeGenerator.generate`; the text is as it was then.
        """
        prompt = self._with(inputs)
        self._end_stream()
        result = self._generator._generate(prompt, generation_config, options, self._pin)
        self._tokens = [*prompt, *(result.generated[0] if len(result.lengths) == 1 else [])]
        return result

    def stream(
        self,
        inputs: str | Sequence[int] = "",
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> TokenStream:
        """As generate(), token by token. What was read belongs to the text, also when the stream is closed early."""
        prompt = self._with(inputs)
        self._end_stream()
        stream = self._generator._stream(prompt, generation_config, options, self)
        self._tokens, self._open_stream = prompt, weakref.ref(stream)
        return stream

    def _end_stream(self) -> None:
        """End the stream that is open, if there is one, as closing it does; whoever reads on is refused."""
        stream = self._open_stream() if self._open_stream is not None else None
        self._open_stream = None
        if stream is not None:
            stream.supersede(_WENT_ON)

    def extend(self, token: int) -> None:
        """Add a token that was read from the session's stream."""
        self._tokens.append(token)

    def hold(self, tokens: list[int]) -> None:
        """Pin what the generator's KV cache holds of the text."""
        self._pin.tokens = tokens

    def fork(self) -> Session:
        """Another session that begins with this text; memory is taken only for what differs later."""
        return Session(self._generator, self._tokens, self._generator._pin(self._pin.tokens))

    def truncate(self, num_tokens: int) -> None:
        """Cut the text back to its first `num_tokens` tokens.

        Raises:
            InvalidInputError: the text is not that long.
        """
        at_most = integer(at_most=len(self._tokens), hint="That is how many tokens the text has.")
        num_tokens = at_most("num_tokens", num_tokens)
        self._end_stream()
        del self._tokens[num_tokens:]
        self._pin.tokens = self._pin.tokens[: common_prefix(self._pin.tokens, self._tokens)]

    def save(self, path: str | Path, *, attachment: str = "") -> None:
        """Write the text with its keys and values to a file: 36 KiB per token for SabiYarn-125M in float16.

        What is not yet computed of the text is computed first. Of a text that is longer than kv_window, or than the
        model's positions where the generator's overflow does not say what to drop, the tokens alone are saved. The file
        is written beside `path` and renamed, so that an older one stays until the new one is whole. A symbolic link
        stays, and the file that it points at is replaced.

        Args:
            attachment: a text of the caller's to keep in the file: `attachment` of the session that is loaded from it.

        Raises:
            InvalidInputError: the text is empty, `attachment` is no text, or the generator is in the middle of a
                stream.
            SessionFileError: the file cannot be written, or `path` is a folder, a pipe, a socket or a device.
        """
        attachment = check_text("attachment", attachment, may_be_empty=True)
        self._generator._save_session(check_path("path", path), self._tokens, self._pin, attachment)

    def _with(self, inputs: str | Sequence[int]) -> list[int]:
        """The text and `inputs`, which are checked."""
        if is_nothing(inputs) and self._tokens:
            return list(self._tokens)
        generator = self._generator
        ids = read_prompt(
            inputs,
            tokenizer=generator.tokenizer,
            vocab_size=generator.config.gptjx.vocab_size,
            begins=not self._tokens,
        )
        return [*self._tokens, *ids]
