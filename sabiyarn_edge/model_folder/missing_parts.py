"""What a model folder lacks that it can run without: tokenizer, end token, tasks, chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InvalidInputError
from .config import read_json_object

__all__ = ["missing_parts"]


def missing_parts(folder: Path) -> list[str]:
    """In words, each with what follows from it; empty if nothing is missing."""
    found = []
    if not (folder / "tokenizer.json").is_file():
        found.append("tokenizer (it takes and gives token ids only; export with --tokenizer ID|FOLDER)")
    if _read(folder / "generation_config.json").get("eos_token_id") is None:
        found.append("end token (output ends at max_new_tokens; set eos_token_id in generation_config.json)")
    if not (folder / "tasks.json").is_file():
        found.append("tasks (tasks.json)")
    in_config = _read(folder / "tokenizer_config.json").get("chat_template")
    if not in_config and not (folder / "chat_template.jinja").is_file():
        found.append("chat template (chat_template.jinja)")
    return found


def _read(path: Path) -> dict[str, Any]:
    """An object of JSON; empty if there is none: whoever needs the file says what is wrong with it."""
    try:
        return read_json_object(path)
    except InvalidInputError:
        return {}
