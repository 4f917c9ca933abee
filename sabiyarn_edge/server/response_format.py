"""response_format: OpenAI's way to ask for JSON, and the names that other servers have for constraints."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from ..errors import InvalidInputError
from ..options.generation_config import GenerationConfig

__all__ = ["OTHER_CONSTRAINT_NAMES", "ResponseFormat", "add_response_format", "check_constraint"]

MAX_CHARACTERS = 2**14
"""Of a schema, an expression or a grammar. Compiling a?a?a?... of so many takes 3 s and 250 MiB, and more than four
times as much for twice as many."""

OTHER_CONSTRAINT_NAMES = {
    "guided_choice": "choices",
    "guided_grammar": "grammar",
    "guided_json": "json_schema",
    "guided_regex": "regex",
}
"""What vLLM's clients send -> options of GenerationConfig."""


class Text(Struct, tag="text", forbid_unknown_fields=True):
    """Anything."""


class JsonObject(Struct, tag="json_object", forbid_unknown_fields=True):
    """Some JSON object."""


class NamedSchema(Struct, forbid_unknown_fields=True):
    """A JSON schema. Its name and description are not shown to the model, and it always holds: `strict` or not."""

    schema_: dict[str, Any] = field(name="schema")
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class JsonSchema(Struct, tag="json_schema", forbid_unknown_fields=True):
    """JSON that fits a schema."""

    json_schema: NamedSchema


ResponseFormat = Text | JsonObject | JsonSchema


def add_response_format(options: dict[str, Any], asked: ResponseFormat | None) -> None:
    """Add what a response_format asks for to the options of GenerationConfig.

    Raises:
        InvalidInputError: the options hold the same already.
    """
    if asked is None or isinstance(asked, Text):
        return
    name, value = (
        ("json_object", True) if isinstance(asked, JsonObject) else ("json_schema", asked.json_schema.schema_)
    )
    if options.get(name) is not None:
        raise InvalidInputError(f"response_format and {name} are given, which mean the same. Leave one out.")
    options[name] = value


def check_constraint(config: GenerationConfig, called: str | None = None) -> None:
    """Refuse a constraint that would take long to compile.

    Args:
        called: what the request calls it; None: as the option.

    Raises:
        InvalidInputError: it is longer than MAX_CHARACTERS.
    """
    for option, value in config.constraints:
        if isinstance(value, str) and len(value) > MAX_CHARACTERS:
            raise InvalidInputError(
                f"{called or option} has {len(value)} characters, but a request may have {MAX_CHARACTERS}, since long "
                "ones take long to compile. Shorten it, or use the library or the command line, which take longer ones."
            )
