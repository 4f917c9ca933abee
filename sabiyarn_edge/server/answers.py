"""How choices and their pieces are written: as text completions, and as chat completions."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..chat.answer import ChatDelta
from ..chat.prompt import ChatPrompt
from ..chat.result import Answer as ReadAnswer
from ..chat.result import ChatReader
from ..options.generation_config import GenerationConfig
from ..text.tokenizer import Tokenizer
from .generating import Choice, Piece
from .logprobs import TextOffsets, TokenLogprobs, shown

__all__ = ["Answer", "ChatAnswer", "CompletionAnswer", "Echo"]

_REASONS = {"eos": "stop", "stop": "stop"}
"""OpenAI's words for ours; all others mean that the text could go on: "length"."""
_LEAST_LOGPROB = -9999.0
"""What OpenAI's API says for minus infinity, which JSON has not."""


class Answer(Protocol):
    """One answer, whole or in chunks: its fields but for usage."""

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """All of it."""

    def opening(self, index: int) -> dict[str, Any] | None:
        """The chunk before a choice's first piece, if there is one."""

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        """One piece; None if it adds nothing."""

    def last(self) -> dict[str, Any]:
        """The chunk without choices, for the usage."""


@dataclass(frozen=True)
class Echo:
    """What stands before a choice."""

    text: str = ""
    """The prompt's; "" without echo."""
    logprobs: Sequence[TokenLogprobs] = ()
    """Of the prompt's tokens, where log-probabilities are wanted."""


class CompletionAnswer:
    """Text completions.

    Args:
        model: its name.
        echoes: of each choice.
        prompts: token ids of each choice's prompt.
    """

    def __init__(
        self, model: str, tokenizer: Tokenizer, echoes: Sequence[Echo], prompts: Sequence[Sequence[int]]
    ) -> None:
        self._head = _head("cmpl", "text_completion", model)
        self._tokenizer, self._echoes, self._prompts = tokenizer, echoes, prompts
        self._offsets: dict[int, TextOffsets] = {}

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        written = []
        for choice in choices:
            echo, logprobs = self._echoes[choice.index], choice.logprobs
            if logprobs is not None:
                logprobs = [*echo.logprobs, *logprobs]
            written.append(self._choice(choice.index, echo.text + choice.text, choice.reason, logprobs))
        return {**self._head, "choices": written}

    def opening(self, index: int) -> dict[str, Any] | None:
        echo = self._echoes[index]
        if not echo.text:
            return None
        return {**self._head, "choices": [self._choice(index, echo.text, "", echo.logprobs or None)]}

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        if not (piece.text or piece.reason or piece.logprobs):
            return None
        return {
            **self._head,
            "choices": [self._choice(piece.index, piece.text, piece.reason, piece.logprobs)],
        }

    def last(self) -> dict[str, Any]:
        return {**self._head, "choices": []}

    def _choice(
        self, index: int, text: str, reason: str, logprobs: Sequence[TokenLogprobs] | None
    ) -> dict[str, Any]:
        return {
            "index": index,
            "text": text,
            "logprobs": None if logprobs is None else self._logprobs(index, logprobs),
            "finish_reason": _reason(reason),
        }

    def _logprobs(self, index: int, logprobs: Sequence[TokenLogprobs]) -> dict[str, Any]:
        if index not in self._offsets:
            echo = self._echoes[index]
            self._offsets[index] = TextOffsets(
                self._tokenizer, self._prompts[index], echo.text, len(echo.logprobs)
            )
        return {
            "tokens": [shown(chosen.token, self._tokenizer)[0] for chosen in logprobs],
            "token_logprobs": [_written(chosen.logprob) for chosen in logprobs],
            "top_logprobs": [
                None
                if chosen.logprob is None
                else {shown(token, self._tokenizer)[0]: _written(logprob) for token, logprob in chosen.top}
                for chosen in logprobs
            ],
            "text_offset": [self._offsets[index].push(chosen.token) for chosen in logprobs],
        }


class ChatAnswer:
    """Chat completions.

    Args:
        model: its name.
        prompt: what is answered.
        config: the options of the answers.
    """

    def __init__(self, model: str, prompt: ChatPrompt, config: GenerationConfig) -> None:
        self._whole = _head("chatcmpl", "chat.completion", model)
        if prompt.left_out_messages:
            self._whole["left_out_messages"] = prompt.left_out_messages
        self._chunk = {**self._whole, "object": "chat.completion.chunk"}
        self._tokenizer, self._prompt, self._config = prompt.tokenizer, prompt, config
        self._readers: dict[int, ChatReader] = {}
        self._num_calls: Counter[int] = Counter()

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        return {**self._whole, "choices": [self._choice(choice) for choice in choices]}

    def _choice(self, choice: Choice) -> dict[str, Any]:
        answer = ChatReader(self._prompt, self._config).read(choice.tokens, choice.reason)
        message = _added(answer)
        content = message.get("content") or (None if answer.tool_calls else "")
        if answer.tool_calls:
            message["tool_calls"] = [call.to_dict() for call in answer.tool_calls]
        return {
            "index": choice.index,
            "message": {"role": "assistant", **message, "content": content, "refusal": None},
            "logprobs": self._logprobs(choice.logprobs),
            "finish_reason": "tool_calls" if answer.tool_calls else _reason(choice.reason),
        }

    def opening(self, index: int) -> dict[str, Any] | None:
        self._readers[index] = ChatReader(self._prompt, self._config)
        return self._of_delta(index, {"role": "assistant", "content": ""}, None, None)

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        reader, index = self._readers[piece.index], piece.index
        added = reader.finish(piece.reason) if piece.token is None else reader.push(piece.token, piece.reason)
        if not (added or piece.logprobs):
            return None
        delta = _added(added)
        if added.tool_calls:
            first = self._num_calls[index]
            delta["tool_calls"] = [
                {"index": at, **call.to_dict()} for at, call in enumerate(added.tool_calls, start=first)
            ]
            self._num_calls[index] += len(added.tool_calls)
        reason = _reason(piece.reason)
        if reason is not None and self._num_calls[index]:
            reason = "tool_calls"
        return self._of_delta(index, delta, piece.logprobs, reason)

    def last(self) -> dict[str, Any]:
        return {**self._chunk, "choices": []}

    def _of_delta(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: Sequence[TokenLogprobs] | None,
        reason: str | None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": self._logprobs(logprobs),
            "finish_reason": reason,
        }
        return {**self._chunk, "choices": [choice]}

    def _logprobs(self, logprobs: Sequence[TokenLogprobs] | None) -> dict[str, Any] | None:
        if logprobs is None:
            return None
        content = [
            {
                **self._token(chosen.token, chosen.logprob),
                "top_logprobs": [self._token(token, logprob) for token, logprob in chosen.top],
            }
            for chosen in logprobs
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        text, own = shown(token, self._tokenizer)
        return {"token": text, "logprob": _written(logprob), "bytes": list(own)}


def _added(part: ChatDelta | ReadAnswer) -> dict[str, Any]:
    """The fields of a message, or of its delta, but for calls; only those that hold something.

    A call that cannot be made stays visible to every client, as content; why it is none stands beside.
    """
    fields: dict[str, Any] = {
        "content": part.content + "".join(call.text for call in part.invalid_calls),
        "reasoning": part.reasoning,
        "task_plan": part.task_plan,
        "invalid_tool_calls": [call.to_dict() for call in part.invalid_calls],
    }
    return {name: value for name, value in fields.items() if value}


def _head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _reason(reason: str) -> str | None:
    return _REASONS.get(reason, "length") if reason else None


def _written(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, _LEAST_LOGPROB)
