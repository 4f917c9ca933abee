"""ChatTemplate: a model folder's Jinja template, which makes messages one text, in jinja2's sandbox.

Source: how templates are read and what they may use is that of transformers 4.57 (utils/chat_template_utils.py).
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import InvalidInputError, ModelFolderError, OutOfMemoryError
from ..model_folder.config import read_json_object
from ..system.installation import install_command
from ..system.regular_file import read_regular_file
from ..text.characters import check_characters

if TYPE_CHECKING:
    import jinja2

__all__ = ["SPECIAL_TOKENS_FILE", "TEMPLATE_FILE", "TOKENIZER_CONFIG_FILE", "ChatTemplate"]

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"

DEFAULT, WITH_TOOLS = "default", "tool_use"
"""Names of templates in tokenizer_config.json: of all messages, and of those with tools where there is such a one."""

_LONGEST_TEMPLATE = 2**20
"""Bytes; the longest of well-known models have some ten KiB."""
_LONGEST_TEXT = 2**24
"""Characters; what a request may hold is less."""


class ChatTemplate:
    """A template; it is compiled at its first use.

    Args:
        source: in Jinja.
        special_tokens: what it may use under these names: bos_token, eos_token, ...
        with_tools: another source for messages with tools; None: the same.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, Any], with_tools: str | None = None) -> None:
        self._source, self._special_tokens = source, dict(special_tokens)
        self._with_tools = None if with_tools is None else ChatTemplate(with_tools, special_tokens)

    @classmethod
    def find(cls, folder: Path) -> ChatTemplate | None:
        """The folder's template, from chat_template.jinja or else tokenizer_config.json; None if it has none.

        Raises:
            ModelFolderError: one of the files is damaged.
        """
        file = folder / TEMPLATE_FILE
        config, more = _read(folder / TOKENIZER_CONFIG_FILE), _read(folder / SPECIAL_TOKENS_FILE)
        sources = _sources(config.get("chat_template"))
        if file.exists():
            try:
                sources[DEFAULT] = read_regular_file(file, at_most=_LONGEST_TEMPLATE).decode()
            except (OSError, UnicodeDecodeError) as error:
                raise ModelFolderError(f"{file} cannot be read: {error}. Copy it again.") from error
        if DEFAULT not in sources:
            return None
        tokens = {**_special_tokens(more), **_special_tokens(config)}
        return cls(sources[DEFAULT], tokens, sources.get(WITH_TOOLS))

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """The text of messages, up to where the assistant's answer begins.

        Args:
            messages: "role" and "content" of each, and what else the template uses.
            tools: in OpenAI's form.

        Raises:
            InvalidInputError: jinja2 is not installed, or the template refuses the messages.
        """
        if tools is not None and self._with_tools is not None:
            return self._with_tools.render(messages, tools)
        compiled = self._compiled
        written = compiled.generate(
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=True,
            **self._special_tokens,
        )
        parts, room = [], _LONGEST_TEXT
        try:
            for part in written:
                room -= len(part)
                if room < 0:
                    raise ValueError(f"it makes more than {_LONGEST_TEXT} characters of them")
                parts.append(part)
            text = "".join(parts)
            check_characters(text, "what it makes of them")
        except MemoryError as error:
            raise OutOfMemoryError(
                "there is not enough memory for what the model's chat template makes of the messages. Take another "
                "template, or end other programs."
            ) from error
        except Exception as error:  # whatever the template does with messages that it was not made for
            raise InvalidInputError(
                f"messages cannot be used with the model's chat template: {error}."
            ) from error
        if not text and not any(message.get("content") for message in messages):
            raise InvalidInputError("messages hold no text: the content of each is empty. Write something.")
        if not text:
            raise InvalidInputError(
                "the model's chat template makes no text of these messages. Mend the template."
            )
        return text

    @functools.cached_property
    def takes_tools(self) -> bool:
        """Whether it writes the tools itself."""
        if self._with_tools is not None:
            return True
        from jinja2 import meta

        environment = self._environment
        return "tools" in meta.find_undeclared_variables(environment.parse(self._source))

    def mentions(self, name: str) -> bool:
        """Whether it reads this field of a message."""
        return name in (self._source if self._with_tools is None else self._with_tools._source)

    @functools.cached_property
    def _compiled(self) -> jinja2.Template:
        environment = self._environment
        try:
            return environment.from_string(self._source)
        except Exception as error:  # jinja2's of syntax; a damaged file must not look like a fault of ours
            raise InvalidInputError(f"the model's chat template is damaged: {error}.") from error

    @property
    def _environment(self) -> jinja2.Environment:
        try:
            return _sandbox()
        except ModuleNotFoundError:
            raise InvalidInputError(
                "messages need the model's chat template, and that needs jinja2, which is not installed: "
                f"{install_command('chat')}."
            ) from None


@functools.cache
def _sandbox() -> jinja2.Environment:
    """What templates run in."""
    from jinja2 import ext, nodes, parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """{% generation %} marks the assistant's text for training; here it is shown as it is."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: parser.Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_shown"), [], [], body).set_lineno(line)

        def _shown(self, caller: Any) -> str:
            return str(caller())

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    del environment.globals["lipsum"]  # fills pages; no chat needs it
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    return environment


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json_object(file) if file.exists() else {}
    except InvalidInputError as error:
        raise ModelFolderError(str(error)) from error


def _sources(value: object) -> dict[str, str]:
    """Templates by their names: a text is the default one."""
    named: dict[str, Any] = {DEFAULT: value}
    if isinstance(value, list):
        named = {str(item.get("name")): item.get("template") for item in value if isinstance(item, dict)}
    return {name: source for name, source in named.items() if isinstance(source, str)}


def _special_tokens(config: Mapping[str, Any]) -> dict[str, Any]:
    def text_of(token: object) -> object:
        return token.get("content") if isinstance(token, dict) else token

    found: dict[str, Any] = {}
    for name, token in config.items():
        if name.endswith("_token") and isinstance(text_of(token), str):
            found[name] = text_of(token)
        elif name == "additional_special_tokens" and isinstance(token, list):
            found[name] = [text_of(item) for item in token]
    return found


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's, it keeps letters and writes no HTML escapes."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
