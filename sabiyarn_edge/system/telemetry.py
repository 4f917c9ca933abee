"""onnxruntime's telemetry, which its wheels have on by default: off, unless the user wants it.

It begins when onnxruntime is imported: a device id goes to ~/.cache/Microsoft, and some seconds later a connection to
its maker is opened. Only the environment variable ORT_DISABLE_TELEMETRY stops that, and only before the import
(onnxruntime's Privacy.md; its disable_telemetry_events() comes after the first event). So importing this package sets
the variable.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

__all__ = ["VARIABLE", "State", "device_id_file", "state", "turn_off"]

VARIABLE = "ORT_DISABLE_TELEMETRY"

_VALUES_THAT_DISABLE = (
    "1",
    "true",
    "yes",
    "on",
)  # seen with onnxruntime 1.32, in any case; others leave it on

State = Literal["off", "on", "came late"]
"""off: nothing is reported. on: the user's own setting. came late: onnxruntime was imported before this package, so its
telemetry runs; events after our import are off but for those it calls essential."""

_came_late = False


def turn_off() -> None:
    """Set the variable unless the user has; called when this package is imported."""
    global _came_late
    if os.environ.get(VARIABLE):
        return
    os.environ[VARIABLE] = "1"
    disable = getattr(sys.modules.get("onnxruntime"), "disable_telemetry_events", None)
    if disable is not None:
        _came_late = True
        disable()


def state() -> State:
    """Whether onnxruntime reports from this process (or will, once it is imported)."""
    if _came_late:
        return "came late"
    return "off" if os.environ.get(VARIABLE, "").lower() in _VALUES_THAT_DISABLE else "on"


def device_id_file() -> Path | None:
    """The device id that onnxruntime's telemetry made when a program of this user let it; None if none did."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = base if base.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # no HOME, and the user is in no password file
        return None
    file = base / "Microsoft" / "DeveloperTools" / ".onnxruntime" / "deviceid"
    return file if file.is_file() else None
