"""ChatSession: a chat of which each turn computes only what is new."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Protocol

from ..engine.prefix_cache import common_prefix
from ..errors import InvalidInputError, SessionFileError
from ..options.checks import flag
from ..options.generation_config import GenerationConfig
from ..system.json_text import parse_json
from ..text.tokenizer import Tokenizer
from ..text_session import Session
from .messages import read_messages
from .prompt import ChatModel, ChatPrompt, KnownText
from .result import ChatReader, ChatResult
from .stream import ChatStream
from .tools import Tool, read_tools

__all__ = ["ChatSession", "chat_in"]

SPARE = 0.25
"""Share of the room that is freed when messages have to be left out, so that the next turns need not leave out more:
each time, the rest is computed again."""


class ChatGenerator(Protocol):
    """The part of EdgeGenerator that a chat session uses."""

    tokenizer: Tokenizer | None

    @property
    def chat_model(self) -> ChatModel: ...

    def _chat_prompt(
        self,
        messages: Any,
        tools: Any,
        tool_choice: Any,
        config: GenerationConfig | None,
        options: Mapping[str, Any],
        *,
        special_tokens: bool,
        first: int,
        spare: float,
        known: KnownText | None,
    ) -> tuple[ChatPrompt, GenerationConfig, dict[str, Any]]: ...


def chat_in(attachment: str) -> dict[str, Any] | None:
    """The chat that was saved beside a session's text, or None if the session is not one of a chat."""
    try:
        found = parse_json(attachment)["chat"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) and "messages" in found else None


class ChatSession:
    """Messages that grow, made by `EdgeGenerator.chat_session`. For one thread at a time.

    The tokens of an answer stay as the model wrote them, as far as the template writes the answer back unchanged;
    otherwise they are computed again with the next turn. Results never depend on what is still held. The next turn
    closes a stream that is still open; reading it on is an InvalidInputError.
    """

    def __init__(
        self,
        generator: ChatGenerator,
        session: Session,
        messages: Sequence[Mapping[str, Any]] = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        special_tokens: bool = False,
    ) -> None:
        _ = generator.chat_model  # refuse a model without a template now
        self._generator, self._session = generator, session
        if not isinstance(messages, Sequence) or messages:  # none yet is the beginning of a chat
            read_messages(messages)
        self._messages = [dict(message) for message in messages]
        self._tools: tuple[Tool, ...] = read_tools(tools)
        self._special_tokens = flag("special_tokens", special_tokens)
        self._open_stream: weakref.ref[ChatStream] | None = None
        self._known = KnownText()
        self._first = 0
        self._left_out = 0

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles hold the chat. An open stream stays with the original."""
        return {**vars(self), "_session": copy(self._session), "_open_stream": None}

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages so far, also those that are left out of prompts, in OpenAI's form."""
        return [dict(message) for message in self._messages]

    @property
    def tokens(self) -> list[int]:
        """Ids of the last prompt and its answer."""
        return self._session.tokens

    @property
    def left_out_messages(self) -> int:
        """Messages that the last prompt left out, since there was no room for them."""
        return self._left_out

    def send(
        self,
        message: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        tool_choice: str | Mapping[str, Any] = "auto",
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> ChatResult:
        """Add a message and generate the answer, which then belongs to the chat.

        Args:
            message: a text of the user's, a message, or several (results of tools).
            tool_choice, generation_config, options: as `EdgeGenerator.chat` takes them. Tools belong to the whole chat.

        Raises: as `EdgeGenerator.chat`; the chat is as it was then.
        """
        messages, prompt, config, rest = self._prompt(message, tool_choice, generation_config, options)
        result = self._session.generate(self._new_ids(prompt), config, **rest)
        answer = ChatReader(prompt, config).read(result.generated[0], result.finish_reasons[0])
        found = ChatResult(**vars(answer), left_out_messages=prompt.left_out_messages, result=result)
        self._add(messages, prompt, found)
        return found

    def stream(
        self,
        message: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        tool_choice: str | Mapping[str, Any] = "auto",
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> ChatStream:
        """As send(), piece by piece. Both messages belong to the chat once the stream has ended or is closed.

        Closed early, the answer is what was read of it.
        """
        messages, prompt, config, rest = self._prompt(message, tool_choice, generation_config, options)
        tokens = self._session.stream(self._new_ids(prompt), config, **rest)
        stream = ChatStream(prompt, config, tokens, lambda result: self._add(messages, prompt, result))
        self._open_stream = weakref.ref(stream)
        return stream

    def save(self, path: str | Path) -> None:
        """Write messages, tools, tokens, and their keys and values to a file. Raises: as `Session.save`."""
        chat = {
            "messages": self._messages,
            "tools": [tool.definition for tool in self._tools],
            "special_tokens": self._special_tokens,
            "text": self._known.text,
            "first": self._first,
            "left_out_messages": self._left_out,
        }
        self._session.save(path, attachment=json.dumps({"chat": chat}, ensure_ascii=False))

    @classmethod
    def loaded(cls, generator: ChatGenerator, session: Session, path: str | Path) -> ChatSession:
        """The chat of a session that was loaded from a file.

        Raises:
            SessionFileError: the file holds no chat.
        """
        chat = chat_in(session.attachment)
        if chat is None:
            raise SessionFileError(f"{path} holds no chat, but a text. Open it with load_session.")
        try:
            made = cls(
                generator,
                session,
                chat["messages"],
                chat["tools"],
                special_tokens=chat["special_tokens"],
            )
            made._known = KnownText(str(chat["text"]), tuple(session.tokens))
            made._first, made._left_out = int(chat["first"]), int(chat["left_out_messages"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise SessionFileError(
                f"{path} holds a damaged chat ({error!r}). Begin another one, or save it again from where it is whole."
            ) from error
        return made

    # --- inside

    def _prompt(
        self,
        message: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        tool_choice: Any,
        config: GenerationConfig | None,
        options: Mapping[str, Any],
    ) -> tuple[list[dict[str, Any]], ChatPrompt, GenerationConfig, dict[str, Any]]:
        if "tools" in options:
            raise InvalidInputError(
                "tools belong to the whole chat. Give them to chat_session(messages, tools=...)."
            )
        self._session._end_stream()
        if self._open_stream is not None and (stream := self._open_stream()) is not None:
            stream.close()
        new: Sequence[Any] = message if isinstance(message, list | tuple) else [message]
        if isinstance(message, str):
            new = [{"role": "user", "content": message}]
        messages = [*self._messages, *new]
        prompt, config, rest = self._generator._chat_prompt(
            messages,
            self._tools,
            tool_choice,
            config,
            options,
            special_tokens=self._special_tokens,
            first=self._first,
            spare=SPARE,
            known=self._known,
        )
        return [dict(item) for item in messages], prompt, config, rest

    def _new_ids(self, prompt: ChatPrompt) -> list[int]:
        """Cut the session back to what it has in common with the prompt, and return the rest of the prompt."""
        shared = common_prefix(self._session.tokens, prompt.ids)
        self._session.truncate(shared)
        return prompt.ids[shared:]

    def _add(self, messages: list[dict[str, Any]], prompt: ChatPrompt, result: ChatResult) -> None:
        """The turn is over: its messages and tokens belong to the chat."""
        self._messages = [*messages, result.message]
        self._first, self._left_out = prompt.first, prompt.left_out_messages
        tokenizer, tokens = self._generator.tokenizer, self._session.tokens
        assert tokenizer is not None
        before = tokenizer.decode(prompt.ids, skip_special_tokens=False)
        whole = tokenizer.decode(tokens, skip_special_tokens=False)
        self._known = KnownText()
        if tokens[: len(prompt.ids)] == prompt.ids and whole.startswith(before):
            self._known = KnownText(prompt.text + whole[len(before) :], tuple(tokens))
