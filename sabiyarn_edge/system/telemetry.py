"""Turns onnxruntime's telemetry off, unless the user wants it. Its wheels have it on by default.

Importing onnxruntime starts it: a device id is written to ~/.cache/Microsoft, and some seconds later a connection to
its maker is opened. Only the environment variable ORT_DISABLE_TELEMETRY stops that, and only before the import;
disable_telemetry_events() comes after the first event. So importing this package sets the variable.

Source: onnxruntime's Privacy.md.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # true for type checkers; whoever imports the package waits for this module
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    State = Literal["off", "on", "came late"]
    """off: nothing is reported. on: the user has set it so. came late: onnxruntime was imported before this package, so
    its telemetry runs; from our import on, only events that it calls essential are reported."""

__all__ = ["VARIABLE", "device_id_file", "state", "turn_off"]

VARIABLE = "ORT_DISABLE_TELEMETRY"

# Observed with onnxruntime 1.32, in upper and lower case; other values leave it on.
_VALUES_THAT_DISABLE = ("1", "true", "yes", "on")

_came_late = False


def turn_off() -> None:
    """Set the variable unless the user has set it. Called when this package is imported."""
    global _came_late
    if os.environ.get(VARIABLE):
        return
    os.environ[VARIABLE] = "1"
    disable = getattr(sys.modules.get("onnxruntime"), "disable_telemetry_events", None)
    if disable is not None:
        _came_late = True
        disable()


def state() -> State:
    """Return the state of onnxruntime's reports from this process, or their state once it is imported."""
    if _came_late:
        return "came late"
    return "off" if os.environ.get(VARIABLE, "").lower() in _VALUES_THAT_DISABLE else "on"


def device_id_file() -> Path | None:
    """Return the device id file that onnxruntime's telemetry made for a program of this user; None if there is none."""
    from pathlib import Path

    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = base if base.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # no HOME, and the user is in no password file
        return None
    file = base / "Microsoft" / "DeveloperTools" / ".onnxruntime" / "deviceid"
    return file if file.is_file() else None
