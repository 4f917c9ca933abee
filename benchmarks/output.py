"""Writes a benchmark's result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["put_out"]


def put_out(result: dict[str, Any], path: Path | None) -> None:
    """Print a result as JSON, and write it to a file if one is given."""
    text = json.dumps(result, indent=2)
    print(text)
    if path:
        path.write_text(text + "\n", encoding="utf-8")
