"""The cache folder and the room on its disk."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from ..errors import InvalidInputError
from ..model_folder.cache_folder import ENVIRONMENT_VARIABLE, cache_folder, disk_bytes
from .finding import Finding
from .system import MIB

__all__ = ["examine_cache"]

_ROOM = 512 * MIB
"""What packing SabiYarn-125M in 8 bits takes for a moment."""


def examine_cache() -> Finding:
    """Whether packed weights can be kept, so that each process need not hold its own."""
    consequence = "each process then holds its own packed weights"
    remedy = f"Let {ENVIRONMENT_VARIABLE} name a folder of yours with enough space."
    try:
        folder = cache_folder()
    except InvalidInputError as error:
        return Finding("cache folder", "problem", str(error), remedy)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        text = f"there is none ({error.strerror or error}{where}); {consequence}"
        return Finding("cache folder", "warning", text, remedy)
    if folder is None:
        text = f"turned off ({ENVIRONMENT_VARIABLE}=off); {consequence}"
        return Finding("cache folder", "warning", text, f"Unset {ENVIRONMENT_VARIABLE}.", {"folder": None})
    facts: dict[str, Any] = {
        "folder": str(folder),
        "free": shutil.disk_usage(folder).free,
        "used": disk_bytes(folder),
        "owner_id": folder.stat().st_uid,
    }
    text = f"{folder}, {facts['used'] / MIB:.0f} MiB used, {facts['free'] / MIB:.0f} MiB free on its disk"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"{folder} (of user id {facts['owner_id']}) cannot be written to ({error.strerror}); {consequence}"
        return Finding("cache folder", "warning", text, remedy, facts)
    if facts["free"] < _ROOM:
        remedy = (
            "Free some space: packing takes four times a model's size for a moment, eight times that of "
            f"float16-weights. Or: {remedy}"
        )
        return Finding("cache folder", "warning", text, remedy, facts)
    return Finding("cache folder", "ok", text, facts=facts)
