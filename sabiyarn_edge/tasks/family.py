"""The SabiYarn family's tasks, as far as a checkpoint's vocabulary has their tags.

Templates and options are those of the authors' evaluation. sabiyarn.json has the form of tasks.json with two additions.
A list may stand in place of one task: the first whose tags are there counts. "languages" may stand in place of a list
of codes or labels: it is all codes whose tags are there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["family_tasks"]

FAMILY_FILE = Path(__file__).parent / "sabiyarn.json"

_TAG = re.compile(r"<[^<>{}\s]+>")
_ALL = "languages"


def family_tasks(has_token: Callable[[str], bool]) -> dict[str, Any] | None:
    """Return the content of a tasks.json for a vocabulary; None if it has no task's tags.

    Args:
        has_token: whether the vocabulary has a token.
    """
    family = json.loads(FAMILY_FILE.read_text(encoding="utf-8"))
    languages = {code: entry for code, entry in family["languages"].items() if has_token(f"<{code}>")}
    tasks = {}
    for name, entries in family["tasks"].items():
        for entry in entries if isinstance(entries, list) else [entries]:
            if all(map(has_token, _TAG.findall(entry["template"]))) and (
                languages or not _needs_languages(entry)
            ):
                tasks[name] = _with_languages(entry, list(languages))
                break
    if not tasks:
        return None
    return {"format_version": family["format_version"], "languages": languages, "tasks": tasks}


def _needs_languages(entry: dict[str, Any]) -> bool:
    return "languages" in entry or entry.get("labels") == _ALL


def _with_languages(entry: dict[str, Any], codes: list[str]) -> dict[str, Any]:
    filled = dict(entry)
    if "languages" in entry:
        filled["languages"] = dict.fromkeys(entry["languages"], codes)
    if entry.get("labels") == _ALL:
        filled["labels"] = codes
    return filled
