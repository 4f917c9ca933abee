"""Reads JSON texts that may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["parse_json"]


def parse_json(text: str | bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Return the value that a JSON text holds.

    Args:
        parse_constant: as json.loads has it: called with "NaN", "Infinity" and "-Infinity".

    Raises:
        ValueError: it is not JSON, an integer has thousands of digits, or it is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=parse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
