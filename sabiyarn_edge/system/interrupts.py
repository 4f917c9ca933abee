"""Ctrl-C (SIGINT) ends a program without a traceback, whatever it is doing: loading modules, running, or exiting."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # true for type checkers; what is imported here is imported before Ctrl-C is handled
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["EXIT_INTERRUPTED", "run_program"]

EXIT_INTERRUPTED = 130
"""128 + SIGINT: what a shell shows for a program that died of SIGINT, too."""


def run_program(run: Callable[[], int | None]) -> int:
    """Run what is the whole program of this process, and return its exit code: 0 for None, 130 after Ctrl-C.

    While `run` imports a module, Ctrl-C ends the process at once by SIGINT's default action: an import that is broken
    off leaves half a module, and compiled ones hide what broke them off ("ImportError: initialization failed"). Else it
    raises KeyboardInterrupt. When `run` has ended, it has its default action again: Python's own clean-up would show a
    traceback. A SIGINT that is ignored, as by a program that a shell starts in the background, stays so.
    """
    handled = False
    try:
        handled = _set_handler()
        return run() or 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        if handled:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _set_handler() -> bool:
    """Handle SIGINT if Python's own handler does. Returns: whether it is handled here."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    try:
        signal.signal(signal.SIGINT, _interrupt)
    except ValueError:  # not the main thread, which has the signals
        return False
    sys.unraisablehook = _unraisable
    return True


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _die()
        frame = frame.f_back
    raise KeyboardInterrupt


def _unraisable(raised: sys.UnraisableHookArgs) -> None:
    """Python cannot raise what comes out of a finalizer: it would show KeyboardInterrupt, and go on."""
    if raised.exc_type is KeyboardInterrupt:
        _die()
    sys.__unraisablehook__(raised)


def _die() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)
