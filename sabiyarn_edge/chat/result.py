"""ChatResult, and how an answer's tokens become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..calls.result import GenerationResult
from ..options.generation_config import GenerationConfig
from ..text.streaming import TextStream
from .answer import AnswerReader, ChatDelta
from .calls import CALL, PLAN, REASON, InvalidCall, ToolCall
from .prompt import ChatPrompt

__all__ = ["Answer", "ChatReader", "ChatResult"]


@dataclass(kw_only=True)
class Answer:
    """An answer, told apart."""

    content: str = ""
    """The answer itself."""
    reasoning: str = ""
    """What the model wrote between <reason> and </reason>."""
    task_plan: str = ""
    """What it wrote between <task_plan> and </task_plan>."""
    tool_calls: list[ToolCall] = field(default_factory=list)
    """Calls that it asks for: of known tools, with arguments that obey their schema."""
    invalid_calls: list[InvalidCall] = field(default_factory=list)
    """What it wrote as calls that cannot be made, with the reason."""
    finish_reason: str = ""
    """Why it ended: "eos", "stop", "length", "time" or "cancelled"."""

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message in OpenAI's form, to be appended to the others."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.reasoning:
            message["reasoning"] = self.reasoning
        if self.task_plan:
            message["task_plan"] = self.task_plan
        if self.tool_calls:
            message["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        return message

    def add(self, delta: ChatDelta) -> None:
        """Take what a step adds."""
        self.content += delta.content
        self.reasoning += delta.reasoning
        self.task_plan += delta.task_plan
        self.tool_calls += delta.tool_calls
        self.invalid_calls += delta.invalid_calls
        self.finish_reason = delta.finish_reason or self.finish_reason


@dataclass(kw_only=True)
class ChatResult(Answer):
    """What a call of chat gives."""

    left_out_messages: int
    """Of the oldest messages behind the system message: those that did not fit."""
    result: GenerationResult | None
    """The generation: ids, timings and more. None where a stream was closed early."""


class ChatReader:
    """Reads the tokens of one answer.

    Args:
        prompt: that is answered.
        config: the options of the answer.
    """

    def __init__(self, prompt: ChatPrompt, config: GenerationConfig) -> None:
        tokenizer = prompt.tokenizer
        tools = {tool.name: tool for tool in prompt.tools} if prompt.choice.mode != "none" else None
        sections = (REASON, PLAN) if tools is None else (REASON, PLAN, CALL)
        tags = (tag for section in sections for tag in (section.opening, section.closing))
        shown = {token for tag in tags if (token := tokenizer.token_to_id(tag)) is not None}
        stops = () if config.include_stop_string else map(tokenizer.normalized, config.stop_texts)
        self._text = TextStream(tokenizer, stop_strings=tuple(stops), shown_ids=shown)
        self._ends = frozenset(config.eos_token_ids) - shown
        self._answer = AnswerReader(tools)
        self._ended = False

    def push(self, token: int, finish_reason: str = "") -> ChatDelta:
        """Take the next token; with a reason it is the last one."""
        is_end = finish_reason == "eos" and token in self._ends
        delta = ChatDelta() if is_end else self._answer.push(self._text.push(token))
        if finish_reason:
            _join(delta, self.finish(finish_reason))
        return delta

    def finish(self, finish_reason: str) -> ChatDelta:
        """Return the rest, if no token came with a reason. A second call gives nothing."""
        if self._ended:
            return ChatDelta()
        self._ended = True
        delta = self._answer.push(self._text.flush(finish_reason))
        _join(delta, self._answer.finish())
        delta.finish_reason = finish_reason
        return delta

    def read(self, tokens: Sequence[int], finish_reason: str) -> Answer:
        """Read all tokens of an answer at once."""
        answer = Answer()
        for index, token in enumerate(tokens):
            answer.add(self.push(token, finish_reason if index == len(tokens) - 1 else ""))
        answer.add(self.finish(finish_reason))
        return answer


def _join(delta: ChatDelta, rest: ChatDelta) -> None:
    delta.content += rest.content
    delta.reasoning += rest.reasoning
    delta.task_plan += rest.task_plan
    delta.tool_calls += rest.tool_calls
    delta.invalid_calls += rest.invalid_calls
    delta.finish_reason = rest.finish_reason
