"""ChatMethods: what EdgeGenerator offers for chats."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..calls.result import GenerationResult
from ..calls.stream import TokenStream
from ..errors import InvalidInputError
from ..options.generation_config import GenerationConfig
from ..options.overflow import Overflow
from ..text.tokenizer import Tokenizer
from ..text_session import Session
from .prompt import ChatModel, ChatPrompt, KnownText
from .result import ChatReader, ChatResult
from .session import ChatSession
from .stream import AsyncChatStream, ChatStream
from .template import ChatTemplate

if TYPE_CHECKING:
    from ..calls.asynchronous import AsyncTokenStream
    from ..calls.request import Settings

__all__ = ["ChatMethods"]


class ChatMethods:
    """Mixed into EdgeGenerator, whose other methods these call."""

    tokenizer: Tokenizer | None
    _arguments: dict[str, Any] | None
    _settings: Settings

    if TYPE_CHECKING:

        @property
        def generation_config(self) -> GenerationConfig: ...
        @property
        def overflow(self) -> Overflow: ...
        def generate(
            self, inputs: Any, generation_config: GenerationConfig | None = None, **options: Any
        ) -> GenerationResult: ...
        def stream(
            self, inputs: Any, generation_config: GenerationConfig | None = None, **options: Any
        ) -> TokenStream: ...
        async def agenerate(
            self, inputs: Any, generation_config: GenerationConfig | None = None, **options: Any
        ) -> GenerationResult: ...
        def astream(
            self, inputs: Any, generation_config: GenerationConfig | None = None, **options: Any
        ) -> AsyncTokenStream: ...
        def session(self, inputs: str | Sequence[int] = "") -> Session: ...
        def _load_session(self, path: str | Path) -> Session: ...

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        generation_config: GenerationConfig | None = None,
        *,
        special_tokens: bool = False,
        **options: Any,
    ) -> ChatResult:
        """Answer messages, by the model's chat template.

        Messages that do not fit beside the answer are left out, the oldest behind the system message first; the result
        says how many.

        Args:
            messages: in OpenAI's form: mappings with "role" and "content".
            tools: that the model may call, in OpenAI's form; None: none.
            tool_choice: "auto": the model decides whether it calls; "none": it does not; "required": it must; a tool's
                name, or OpenAI's mapping of it: it must call this one. With the last two, the form of the call and the
                schema of its arguments are enforced.
            generation_config, options: as `generate` takes them.
            special_tokens: read special tokens and other tags in the messages' texts as such; else they are text.

        Returns:
            ChatResult: content, reasoning, tool_calls and the `message` to append.

        Raises:
            InvalidInputError: the model has no chat template, jinja2 is not installed, an argument is not allowed, or
                the newest messages do not fit; nothing was computed.
            NumericalError: as `generate`.
        """
        prompt, config, rest = self._chat_prompt(
            messages, tools, tool_choice, generation_config, options, special_tokens=special_tokens
        )
        return _chat_result(prompt, config, self.generate(prompt.ids, config, **rest))

    def chat_stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        generation_config: GenerationConfig | None = None,
        *,
        special_tokens: bool = False,
        **options: Any,
    ) -> ChatStream:
        """As `chat`, piece by piece: an iterator of ChatDelta, whose `result` is the ChatResult at the end.

        Args, Raises: as `chat`. A call of a tool comes in one piece, when it is complete and valid.
        """
        prompt, config, rest = self._chat_prompt(
            messages, tools, tool_choice, generation_config, options, special_tokens=special_tokens
        )
        return ChatStream(prompt, config, self.stream(prompt.ids, config, **rest))

    async def achat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        generation_config: GenerationConfig | None = None,
        *,
        special_tokens: bool = False,
        **options: Any,
    ) -> ChatResult:
        """As `chat`, for asyncio: the event loop goes on meanwhile. Cancelling the task ends the call."""
        prompt, config, rest = self._chat_prompt(
            messages, tools, tool_choice, generation_config, options, special_tokens=special_tokens
        )
        return _chat_result(prompt, config, await self.agenerate(prompt.ids, config, **rest))

    def achat_stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        generation_config: GenerationConfig | None = None,
        *,
        special_tokens: bool = False,
        **options: Any,
    ) -> AsyncChatStream:
        """As `chat_stream`, for asyncio: `async for delta in generator.achat_stream(messages)`."""
        prompt, config, rest = self._chat_prompt(
            messages, tools, tool_choice, generation_config, options, special_tokens=special_tokens
        )
        return AsyncChatStream(prompt, config, self.astream(prompt.ids, config, **rest))

    def chat_session(
        self,
        messages: Sequence[Mapping[str, Any]] = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        special_tokens: bool = False,
    ) -> ChatSession:
        """Begin a chat of which each turn computes only what is new.

        Args:
            messages: its beginning, such as a system message.
            tools, special_tokens: as `chat` takes them, for all turns.

        Raises: as `chat`.
        """
        return ChatSession(self, self.session(), messages, tools, special_tokens=special_tokens)

    def load_chat(self, path: str | Path) -> ChatSession:
        """Open what ChatSession.save wrote: nothing that it holds is computed again.

        Raises: as `load_session`; SessionFileError too if the file holds no chat.
        """
        return ChatSession.loaded(self, self._load_session(path), path)

    @functools.cached_property
    def chat_model(self) -> ChatModel:
        """The tokenizer and chat template, which turn messages into prompts.

        Raises:
            InvalidInputError: the model has no chat template or no tokenizer.
            ModelFolderError: a file of the template is damaged.
        """
        folder = None if self._arguments is None else self._arguments["path"]
        template = None if folder is None else ChatTemplate.find(folder)
        if template is None:
            raise InvalidInputError(
                f"messages need a chat template, but the model {'' if folder is None else folder.name} has none: "
                "neither chat_template.jinja nor a chat_template in tokenizer_config.json is in its folder. Give "
                "prompts instead, or put the model's chat_template.jinja into the folder."
            )
        if self.tokenizer is None:
            raise InvalidInputError(
                "messages need a tokenizer, but the model folder has none. Put the model's tokenizer.json into it."
            )
        return ChatModel(self.tokenizer, template, self._settings.max_length, self._settings.kv_window)

    def _chat_prompt(
        self,
        messages: Any,
        tools: Any,
        tool_choice: Any,
        config: GenerationConfig | None,
        options: Mapping[str, Any],
        *,
        special_tokens: bool,
        first: int = 0,
        spare: float = 0.0,
        known: KnownText | None = None,
    ) -> tuple[ChatPrompt, GenerationConfig, dict[str, Any]]:
        """The prompt, the options of its answer, and what else `generate` is given."""
        model = self.chat_model
        names = GenerationConfig.__dataclass_fields__
        rest = {name: value for name, value in options.items() if name not in names}
        config = (self.generation_config if config is None else GenerationConfig.of(config)).updated(
            **{name: value for name, value in options.items() if name in names}
        )
        if config.num_return_sequences > 1:
            raise InvalidInputError(
                f"num_return_sequences is {config.num_return_sequences}, but a chat has one answer. Leave it out."
            )
        prompt = model.prompt(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            new_tokens=config.max_new_tokens,
            max_length=config.max_length,
            cuts=self.overflow.take_from(dict(rest)).mode == "error",
            special_tokens=special_tokens,
            first=first,
            spare=spare,
            known=known,
        )
        return prompt, prompt.constrained(config), rest


def _chat_result(prompt: ChatPrompt, config: GenerationConfig, result: GenerationResult) -> ChatResult:
    answer = ChatReader(prompt, config).read(result.generated[0], result.finish_reasons[0])
    return ChatResult(**vars(answer), left_out_messages=prompt.left_out_messages, result=result)
