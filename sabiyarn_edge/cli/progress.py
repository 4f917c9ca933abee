"""ProgressLine and Speed: how far a job over a file has come, on the terminal, and how fast."""

from __future__ import annotations

import sys
import time

__all__ = ["ProgressLine", "Speed", "duration"]

_EVERY_SECONDS = 0.2
_WIDTH = 20


class ProgressLine:
    """One line that is written over itself; nothing where standard error is no terminal.

    Args:
        shown: whether anything is written at all.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self._shown = shown and sys.stderr.isatty()
        self._started, self._begun_at = time.perf_counter(), -1.0
        self._last, self._is_there = 0.0, False

    def show(self, text: str, done: int, total: int) -> None:
        """Show how much is done.

        Args:
            text: what else to say.
            done, total: of the input, bytes; total 0: not known.
        """
        now = time.perf_counter()
        if not self._shown or now - self._last < _EVERY_SECONDS:
            return
        bar = self.bar(done, total, now)
        sys.stderr.write(f"\r\x1b[K{bar}[{text}]")
        sys.stderr.flush()
        self._last, self._is_there = now, True

    def bar(self, done: int, total: int, now: float) -> str:
        """The share that is done and the time that is left, which only what this run has done tells."""
        if total <= 0:
            return ""
        share = min(done / total, 1.0)
        if self._begun_at < 0:
            self._begun_at = share
        passed = share - self._begun_at
        left = duration((now - self._started) / passed * (1 - share)) if passed > 0 else "?"
        return f"|{'#' * int(_WIDTH * share):<{_WIDTH}}| {100 * share:3.0f} %, {left} left "

    def hide(self) -> None:
        """Clear the line, before anything else is written."""
        if self._is_there:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_there = False


class Speed:
    """How fast this run is, without what runs before it have done."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before: tuple[int, int] | None = None
        self.records = self.tokens = 0

    def count(self, records: int, tokens: int) -> None:
        """Say how many there are in all; the first call says how many there were before."""
        self.records, self.tokens = records, tokens
        self._before = self._before or (records, tokens)

    @property
    def rates(self) -> str:
        """Lines and tokens in each second."""
        seconds = time.perf_counter() - self._started
        records, tokens = self._before or (0, 0)
        return f"{(self.records - records) / seconds:.1f} lines/s, {(self.tokens - tokens) / seconds:.1f} tokens/s"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, like 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
