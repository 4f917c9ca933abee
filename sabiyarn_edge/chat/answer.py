"""AnswerReader takes an answer's text piece by piece and tells reasoning, plan, content and calls apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .calls import CALL, PLAN, REASON, InvalidCall, Tag, ToolCall, read_call
from .tools import Tool

__all__ = ["AnswerReader", "ChatDelta"]


@dataclass(kw_only=True)
class ChatDelta:
    """What one step of a stream adds to an answer."""

    content: str = ""
    """Text of the answer itself."""
    reasoning: str = ""
    """Text between <reason> and </reason>."""
    task_plan: str = ""
    """Text between <task_plan> and </task_plan>."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls that are complete and valid with this step."""
    invalid_calls: tuple[InvalidCall, ...] = ()
    """What the model wrote as calls that cannot be made."""
    finish_reason: str = ""
    """Why the answer ended with this step, as StreamedToken.finish_reason; "" before that."""

    def __bool__(self) -> bool:
        """Whether it adds anything."""
        return self != ChatDelta()


class AnswerReader:
    """Reads one answer. A section's tag is held back until it is certain that it is one.

    Reasoning and plan stand before everything else. White space between sections belongs to none of them.

    Args:
        tools: by their names, that may be called; None: <tool_call> is text.
    """

    def __init__(self, tools: Mapping[str, Tool] | None) -> None:
        self._tools = tools
        self._held = ""
        self._section: Tag | None = None  # None: content
        self._is_first = True  # nothing but reasoning and plan came yet
        self._begins = True  # no content since the last section
        self._has_sections = False

    def push(self, text: str) -> ChatDelta:
        """Take text; return what is certain."""
        self._held += text
        delta = ChatDelta()
        while self._content(delta) if self._section is None else self._inside(self._section, delta):
            pass
        return delta

    def finish(self) -> ChatDelta:
        """Return the rest, after the last text."""
        delta = self.push("")
        rest, self._held = self._held, ""
        if self._section is CALL:
            problem = f"it has no {CALL.closing}: the answer ended before the call did"
            delta.invalid_calls += (InvalidCall(CALL.opening + rest, problem),)
        elif self._section is not None:
            self._add(self._section, rest, delta)
        elif rest.strip() or not self._has_sections:
            delta.content += rest
        return delta

    def _content(self, delta: ChatDelta) -> bool:
        """Take content up to the next section. Returns True if there may be more to take."""
        tags = [CALL] if self._tools is not None else []
        if self._is_first:
            tags += [REASON, PLAN]
        found = [(at, tag) for tag in tags if (at := self._held.find(tag.opening)) >= 0]
        if not found:
            self._give(self._certain([tag.opening for tag in tags]), delta)
            return False
        at, tag = min(found, key=lambda item: item[0])
        is_text = tag is not CALL and bool(
            self._held[:at].strip()
        )  # since it does not stand before everything
        self._give(at, delta)
        if not is_text:
            self._held = self._held.partition(tag.opening)[2]
            self._section, self._has_sections = tag, True
            self._is_first = self._is_first and tag is not CALL
        return True

    def _give(self, length: int, delta: ChatDelta) -> None:
        """Give so many characters as content; white space behind a section waits for what follows it."""
        text = self._held[:length]
        if self._begins:
            if not text.strip():
                return
            if self._has_sections:
                text = text.lstrip()
        self._begins = self._is_first = False
        delta.content += text
        self._held = self._held[length:]

    def _inside(self, section: Tag, delta: ChatDelta) -> bool:
        """Take a section's text up to its end. Returns True if it ends."""
        at = self._held.find(section.closing)
        if at >= 0:
            self._add(section, self._held[:at], delta, complete=True)
            self._held = self._held[at + len(section.closing) :]
            self._section, self._begins = None, True
            return True
        if section is not CALL:  # a call is read when it is complete
            certain = self._certain([section.closing])
            self._add(section, self._held[:certain], delta)
            self._held = self._held[certain:]
        return False

    def _add(self, section: Tag, text: str, delta: ChatDelta, *, complete: bool = False) -> None:
        if section is REASON:
            delta.reasoning += text
        elif section is PLAN:
            delta.task_plan += text
        elif complete:
            call = read_call(text, self._tools or {})
            if isinstance(call, ToolCall):
                delta.tool_calls += (call,)
            else:
                delta.invalid_calls += (call,)

    def _certain(self, tags: list[str]) -> int:
        """Where the longest tail begins that may become one of the tags; the end if there is none."""
        longest = max(map(len, tags), default=0)
        for at in range(max(0, len(self._held) - longest + 1), len(self._held)):
            if any(tag.startswith(self._held[at:]) for tag in tags):
                return at
        return len(self._held)
