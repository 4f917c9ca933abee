"""StopHold: holds back text that may turn out to be a stop string, and cuts it off when it was one."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopHold"]


class StopHold:
    """A stage of a text stream. The caller tells `finish` if a stop string ended the text.

    Args:
        stop_strings: texts that are not shown. Empty: everything passes at once.
    """

    def __init__(self, stop_strings: Sequence[str]) -> None:
        self._stops = tuple(stop_strings)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self._newest = 0  # where in _held the last push begins; earlier stop strings ended nothing

    def push(self, text: str) -> str:
        """Take text. Returns the part that cannot belong to a stop string that ends here or later."""
        self._newest = len(self._held)
        self._held += text
        keep_from = min(self._first_stop(), self._first_start())
        final, self._held = self._held[:keep_from], self._held[keep_from:]
        self._newest = max(0, self._newest - keep_from)
        return final

    def finish(self, text: str = "", *, stopped: bool) -> str:
        """Return the held text at the end of the stream; if `stopped`, the part before the stop string.

        Args:
            text: further text of the last token, which was not pushed.
        """
        self._held += text
        final = self._held[: self._first_stop()] if stopped else self._held
        self._held, self._newest = "", 0
        return final

    def _first_stop(self) -> int:
        """Return the start of the first stop string that ends in the newest text; the end if there is none."""
        found = [self._held.find(stop, max(0, self._newest - len(stop) + 1)) for stop in self._stops]
        return min((index for index in found if index >= 0), default=len(self._held))

    def _first_start(self) -> int:
        """Return the start of the longest tail that can still become a stop string; the end if there is none."""
        for index in range(max(0, len(self._held) - self._longest + 1), len(self._held)):
            if any(stop.startswith(self._held[index:]) for stop in self._stops):
                return index
        return len(self._held)
