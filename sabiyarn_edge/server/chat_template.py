"""ChatTemplate: a model folder's Jinja template, which makes messages one text, in jinja2's sandbox.

Source: how templates are read and what they may use is that of transformers 4.57 (utils/chat_template_utils.py).
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import InvalidInputError, ModelFolderError
from ..model_folder.config import read_json_object
from ..system.regular_file import read_regular_file

__all__ = ["TEMPLATE_FILE", "ChatTemplate"]

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_LONGEST_TEMPLATE = 2**20
"""Bytes; the longest of well-known models have some ten KiB."""


class ChatTemplate:
    """A template; it is compiled at its first use.

    Args:
        source: in Jinja.
        special_tokens: texts that it may use: bos_token, eos_token, ...
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._source, self._special_tokens = source, dict(special_tokens)

    @classmethod
    def find(cls, folder: Path) -> ChatTemplate | None:
        """The folder's template, from chat_template.jinja or else tokenizer_config.json; None if it has none.

        Raises:
            ModelFolderError: one of the files is damaged.
        """
        file, config_file = folder / TEMPLATE_FILE, folder / TOKENIZER_CONFIG_FILE
        try:
            config = read_json_object(config_file) if config_file.exists() else {}
        except InvalidInputError as error:
            raise ModelFolderError(str(error)) from error
        source = _source(config.get("chat_template"))
        if file.exists():
            try:
                source = read_regular_file(file, at_most=_LONGEST_TEMPLATE).decode()
            except (OSError, UnicodeDecodeError) as error:
                raise ModelFolderError(f"{file} cannot be read: {error}. Copy it again.") from error
        return None if source is None else cls(source, _special_tokens(config))

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text of messages, up to where the assistant's answer begins.

        Args:
            messages: "role" and "content" of each.

        Raises:
            InvalidInputError: jinja2 is not installed, or the template refuses the messages.
        """
        try:
            template = self._compiled
        except ModuleNotFoundError:
            raise InvalidInputError(
                "messages need the model's chat template, and that needs jinja2, which is not installed at the "
                "server: pip install jinja2. /v1/completions takes a prompt without it."
            ) from None
        except (
            Exception
        ) as error:  # jinja2's errors of syntax; a damaged file must not look like a fault of ours
            raise InvalidInputError(f"the model's chat template is damaged: {error}.") from error
        try:
            return str(template.render(messages=messages, add_generation_prompt=True, **self._special_tokens))
        except Exception as error:  # whatever the template does with messages that it was not made for
            raise InvalidInputError(
                f"messages cannot be used with the model's chat template: {error}."
            ) from error

    @functools.cached_property
    def _compiled(self) -> Any:
        from jinja2 import ext, nodes, parser
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Generation(ext.Extension):
            """{% generation %} marks the assistant's text for training; here it is shown as it is."""

            tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

            def parse(self, parser: parser.Parser) -> list[nodes.Node]:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        return environment.from_string(self._source)


def _source(value: object) -> str | None:
    """A tokenizer_config.json's template: a text, or several with names, of which "default" is meant."""
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, token in config.items():
        text = token.get("content") if isinstance(token, dict) else token
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _to_json(value: Any, **options: Any) -> str:
    """Unlike jinja2's, it keeps letters and writes no HTML escapes."""
    return json.dumps(value, ensure_ascii=False, **options)


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
