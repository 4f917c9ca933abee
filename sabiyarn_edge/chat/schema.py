"""ArgumentSchema: the JSON schema of a tool's arguments, which may come from anybody, and the check by it.

The jsonschema package checks. Patterns are left to llguidance, whose time is linear in the text: Python's `re` may take
for ever over a pattern like (a+)+b.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError, shortened, shown
from ..options.checks import unfinished_regex
from ..system.installation import install_command

if TYPE_CHECKING:
    from llguidance import LLMatcher

__all__ = ["ArgumentSchema"]


class ArgumentSchema:
    """A checked schema.

    Args:
        schema: of an object.
        where: its name in messages.

    Raises:
        InvalidInputError: it is no JSON schema, or holds what is not supported; or a package is not installed.
    """

    def __init__(self, schema: Mapping[str, Any], where: str) -> None:
        try:
            import jsonschema
            import referencing
        except ModuleNotFoundError:
            raise InvalidInputError(
                "tools need jsonschema, which is not installed, to check the arguments of calls: "
                f"{install_command('chat')}."
            ) from None
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            _check_parts(schema, where)
            kind.check_schema(schema)
        except RecursionError:
            raise InvalidInputError(f"{where} is nested too deeply.") from None
        except jsonschema.SchemaError as error:
            at = f" at {error.json_path}" if error.json_path != "$" else ""
            raise InvalidInputError(
                f"{where} is no JSON schema{at}: {shortened(error.message, 400)}."
            ) from None
        checking = jsonschema.validators.extend(kind, {"pattern": _check_pattern})
        self._validator = checking(schema, registry=referencing.Registry())  # which fetches nothing

    def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """What is wrong with arguments; None if they are valid."""
        import jsonschema
        import referencing.exceptions

        try:
            error = jsonschema.exceptions.best_match(self._validator.iter_errors(arguments))
        except (RecursionError, ArithmeticError, referencing.exceptions.Unresolvable) as failed:
            return f"arguments: they cannot be checked ({failed})"
        if error is None:
            return None
        return f"{error.json_path.removeprefix('$').removeprefix('.') or 'arguments'}: {shortened(error.message, 400)}"


def _check_parts(schema: Any, where: str) -> None:
    if isinstance(schema, list):
        for item in schema:
            _check_parts(item, where)
    if not isinstance(schema, Mapping):
        return
    for name, value in schema.items():
        if name in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
            raise InvalidInputError(
                f"{where} refers to {shortened(value)}; only references inside of it (#/...) are read."
            )
        if name == "patternProperties":
            raise InvalidInputError(f"{where} has patternProperties, which is not supported. Leave it out.")
        if name == "pattern" and isinstance(value, str):
            try:
                _matcher(value)
            except ValueError as error:
                raise InvalidInputError(
                    f"{where} has the pattern {shown(value)}, which cannot be used: {error}."
                ) from None
        _check_parts(value, where)


def _check_pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Exception]:
    """jsonschema's hook for "pattern"."""
    import jsonschema

    if isinstance(instance, str) and not _matches(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _matches(pattern: str, text: str) -> bool:
    matcher = _matcher(pattern).deep_copy()
    written = list(json.dumps(text, ensure_ascii=False).encode())  # of this vocabulary, tokens are bytes
    return matcher.try_consume_tokens(written) == len(written) and matcher.is_accepting()


@functools.lru_cache(maxsize=64)
def _matcher(pattern: str) -> LLMatcher:
    """What follows a JSON string with a pattern. Raises: ValueError, if the pattern cannot be used."""
    if unfinished_regex(pattern):
        raise ValueError("the backslash at its end escapes nothing")
    try:
        import llguidance
    except ModuleNotFoundError:
        raise ValueError(f"patterns need llguidance: {install_command('json')}") from None
    vocabulary = llguidance.LLTokenizer("byte")
    grammar = llguidance.grammar_from("json_schema", json.dumps({"type": "string", "pattern": pattern}))
    problem = llguidance.LLMatcher.validate_grammar(grammar, vocabulary)
    if problem:
        raise ValueError(" ".join(problem.split()))
    return llguidance.LLMatcher(vocabulary, grammar)
