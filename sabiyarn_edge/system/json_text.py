"""Reads JSON texts that may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["json_kind", "parse_json"]


def parse_json(
    text: str | bytes,
    *,
    parse_constant: Callable[[str], Any] | None = None,
    on_object: Callable[[list[tuple[str, Any]]], object] | None = None,
) -> Any:
    """Return the value that a JSON text holds.

    Args:
        parse_constant: as json.loads has it: called with "NaN", "Infinity" and "-Infinity".
        on_object: called with the keys and values of each object, inner objects first, a repeated key each time.

    Raises:
        ValueError: it is not JSON, an integer has thousands of digits, or it is nested too deeply.
    """

    def seen(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert on_object is not None
        on_object(pairs)
        return dict(pairs)

    try:
        return json.loads(
            text, parse_constant=parse_constant, object_pairs_hook=None if on_object is None else seen
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_kind(value: Any) -> str:
    """What a value of JSON is, in JSON's words: "null", "a number", "an object"."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = ((str, "a string"), (dict, "an object"), (list, "a list"))
    return next((kind for each, kind in kinds if isinstance(value, each)), "a number")
