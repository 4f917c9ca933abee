"""ChatModel makes prompts of messages: by the model's template, within its positions, with typed tags as text."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..calls.decode_options import DEFAULT_MAX_NEW_TOKENS
from ..errors import InvalidInputError
from ..options.checks import flag
from ..options.generation_config import GenerationConfig
from ..text.parts import PartEncoder
from ..text.tokenizer import Tokenizer
from .calls import CALL, PLAN, REASON, RESULT, written_call
from .grammar import call_grammar
from .messages import Arguments, Message, read_messages
from .template import ChatTemplate
from .tools import Tool, ToolChoice, read_tool_choice, read_tools, tools_in_words

__all__ = ["ChatModel", "ChatPrompt", "KnownText"]


@dataclass(frozen=True)
class KnownText:
    """A text whose ids are known: what a session has computed."""

    text: str = ""
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChatPrompt:
    """A prompt made of messages."""

    ids: list[int]
    text: str
    """What the template made of the messages."""
    tools: tuple[Tool, ...]
    choice: ToolChoice
    first: int
    """Index of the first message behind the system message that was taken."""
    left_out_messages: int
    """Messages behind the system message that were left out, since there was no room for them."""
    tokenizer: Tokenizer

    def options(self) -> dict[str, Any]:
        """Options of GenerationConfig that hold the answer to tool_choice."""
        if self.choice.mode == "required":
            callable_tools = [tool for tool in self.tools if self.choice.name in (None, tool.name)]
            return {"grammar": call_grammar(callable_tools, self.tokenizer)}
        return {}

    def constrained(self, config: GenerationConfig) -> GenerationConfig:
        """The config with these options.

        Raises:
            InvalidInputError: it has a constraint already.
        """
        options = self.options()
        if "grammar" in options:
            given = [name for name in _CONSTRAINTS if getattr(config, name, None)]
            if given:
                raise InvalidInputError(
                    f"tool_choice asks for a call, but {given[0]} asks for something else. Leave out one of the two."
                )
        elif self.choice.mode == "none" and self.tools:
            call = self.tokenizer.token_to_id(CALL.opening)
            if call is not None:
                options["suppress_tokens"] = [*(config.suppress_tokens or ()), call]
        return config.updated(**options)


_CONSTRAINTS = ("grammar", "json_schema", "json_object", "regex", "choices")


class ChatModel:
    """What chats with one model need.

    Args:
        tokenizer: the model's.
        template: the model folder's.
        positions: most positions of prompt and answer.
        window: most positions that a token sees.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, positions: int, window: int) -> None:
        self.tokenizer, self.template = tokenizer, template
        self._positions, self._window = positions, window

    def prompt(
        self,
        messages: Any,
        *,
        tools: Any = None,
        tool_choice: Any = None,
        new_tokens: int | None = None,
        max_length: int | None = None,
        cuts: bool = True,
        special_tokens: bool = False,
        first: int = 0,
        spare: float = 0.0,
        known: KnownText | None = None,
    ) -> ChatPrompt:
        """Make the prompt of messages.

        Where they do not fit, the oldest behind the system message are left out, up to a message of the user's.

        Args:
            messages, tools, tool_choice: as `EdgeGenerator.chat` takes them.
            new_tokens: tokens that the answer needs; None: as many as usual, or fewer.
            max_length: most tokens of prompt and answer, without new_tokens; None: as many as there are positions.
            cuts: whether a prompt that is too long even so is refused; else the caller's overflow cuts it.
            special_tokens: read control tokens in the messages' texts as such.
            first: index of a message before which all behind the system message stay left out.
            spare: if messages have to be left out, leave out so many more that this share of the room is free.
            known: a text that the prompt's may begin with; its ids are taken as they are.

        Raises:
            InvalidInputError: an argument is not allowed, or the newest messages do not fit.
        """
        messages = read_messages(messages)
        available = read_tools(tools)
        choice = read_tool_choice(tool_choice, available)
        shield = _Shield(None if flag("special_tokens", special_tokens) else self.tokenizer.parts)
        try:
            composed = [composed_messages(shield.hidden(message), self.template) for message in messages]
            definitions = [shield.hidden(tool.definition) for tool in available]
        except RecursionError:
            raise InvalidInputError("messages or tools are nested too deeply. Make them flatter.") from None
        head = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
        drafts: dict[int, _Draft] = {}

        def draft(start: int) -> _Draft:
            if start not in drafts:
                shown = [*composed[:head], *composed[start:]]
                flat = [part for parts in shown for part in parts]
                drafts[start] = self._draft(flat, shield, definitions, known)
            return drafts[start]

        positions = self._positions
        if new_tokens is None and max_length is not None:
            positions = min(positions, max_length)
        limit = min(positions, self._window)
        usual = min(DEFAULT_MAX_NEW_TOKENS, limit // 4)
        room = limit - (usual if new_tokens is None else new_tokens if cuts else min(new_tokens, usual))
        starts = [i for i in range(head + 1, len(messages)) if messages[i]["role"] == "user" and i >= first]
        if first <= head:
            starts.insert(0, head)
        place = _first_that(lambda start: len(draft(start).ids) <= room, starts)
        if 0 < place < len(starts) and spare:
            less = int(room * (1 - spare))
            place = _first_that(lambda start: len(draft(start).ids) <= less, starts)
        start = starts[min(place, len(starts) - 1)]
        if cuts and len(draft(start).ids) > positions - (new_tokens or 1):
            raise InvalidInputError(
                f"messages {start} to {len(messages) - 1} make a prompt of {len(draft(start).ids)} tokens, and the "
                f"answer needs {new_tokens or 1}: more than the {positions} positions. Shorten them, or ask for "
                "fewer new tokens."
            )
        chosen = draft(start)
        return ChatPrompt(
            ids=chosen.ids,
            text=chosen.text,
            tools=available,
            choice=choice,
            first=start,
            left_out_messages=start - head,
            tokenizer=self.tokenizer,
        )

    def _draft(
        self,
        messages: Sequence[Message],
        shield: _Shield,
        tools: Sequence[Mapping[str, Any]],
        known: KnownText | None,
    ) -> _Draft:
        shown = list(tools) or None
        if shown and not self.template.takes_tools:
            messages, shown = _with_tools(messages, tools_in_words(shown)), None
        parts = shield.parts(self.template.render(messages, shown))
        text = "".join(part for part, _ in parts)
        encoded = self.tokenizer.parts.encode(parts, add_special_tokens=False)  # the template writes them
        if known is not None and known.ids and text.startswith(known.text):
            end, control = len(known.text), self.tokenizer.parts.control_ids
            at = bisect.bisect_left(encoded.spans, (end, end))
            at_border = at == 0 or encoded.spans[at - 1][1] <= end
            rest = encoded.ids[at:]
            if at_border and rest and (rest[0] in control or known.ids[-1] in control):
                return _Draft([*known.ids, *rest], text)
        return _Draft(encoded.ids, text)


@dataclass(frozen=True)
class _Draft:
    ids: list[int]
    text: str


def _first_that(fits: Callable[[int], bool], starts: Sequence[int]) -> int:
    """Place of the first start that fits; len(starts) if none does. The later it is, the shorter is the prompt."""
    return bisect.bisect_left(starts, True, key=fits)


class _Shield:
    """Hides control tokens in what users gave while a template is rendered, and says afterwards where they stood.

    Each is replaced by a character for private use, which a template passes on like any letter.

    Args:
        encoder: that knows the control tokens; None: nothing is hidden.
    """

    _FIRST = 0xF0000
    _OURS = re.compile("[\U000f0000-\U000ffffd]")

    def __init__(self, encoder: PartEncoder | None) -> None:
        self._encoder = encoder
        self._texts: list[str] = []

    def hidden(self, value: Any) -> Any:
        """A text, or a value that holds texts, without control tokens."""
        if isinstance(value, str):
            return self._without(value)
        if isinstance(value, Arguments):
            values = {self.hidden(name): self.hidden(item) for name, item in value.items()}
            return Arguments(values, self._without(value.written))
        if isinstance(value, Mapping):
            return {name: self.hidden(item) for name, item in value.items()}
        return [self.hidden(item) for item in value] if isinstance(value, list) else value

    def _without(self, text: str) -> str:
        if self._encoder is None:
            return text
        text = self._OURS.sub(lambda match: self._character(match[0]), text)
        pieces, end = [], 0
        for first, last in self._encoder.control_spans(text):
            pieces += [text[end:first], self._character(text[first:last])]
            end = last
        return "".join([*pieces, text[end:]])

    def _character(self, text: str) -> str:
        if text not in self._texts:
            self._texts.append(text)
        return chr(self._FIRST + self._texts.index(text))

    def parts(self, rendered: str) -> list[tuple[str, bool]]:
        """The rendered text with what was hidden: (text, whether its control tokens are read as such)."""
        if self._encoder is None:
            return [(rendered, True)]
        parts, end = [], 0
        for match in self._OURS.finditer(rendered):
            parts += [(rendered[end : match.start()], True)]
            place = ord(match[0]) - self._FIRST
            known = place < len(self._texts)  # else the template's own
            parts += [(self._texts[place], False) if known else (match[0], True)]
            end = match.end()
        return [*parts, (rendered[end:], True)]


def composed_messages(message: Message, template: ChatTemplate) -> list[Message]:
    """A message as the template takes it: what it has no field for stands in the content, in the model's form."""
    message = dict(message)
    sections = ""
    for name, tag in (("reasoning", REASON), ("task_plan", PLAN)):
        if name in message and not template.mentions(name):
            sections += tag.around(message.pop(name))
    if "reasoning" in message:
        message["reasoning_content"] = message["reasoning"]
    message["content"] = sections + message["content"]
    if template.mentions("tool_calls"):
        return [message]
    if message["role"] == "tool":
        text = RESULT.around(f"{message['name']}\n{message['content']}")
        return [{"role": "user", "content": text}]
    calls = message.pop("tool_calls", ())
    spoken = [message] if message["content"] or not calls else []
    written = (
        written_call(call["function"]["name"], call["function"]["arguments"].written) for call in calls
    )
    return [*spoken, *({"role": "assistant", "content": text} for text in written)]


def _with_tools(messages: Sequence[Message], words: str) -> list[Message]:
    """The messages with the tools in the system message."""
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{words}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": words}, *messages]
