"""Target: one reader of what comes from outside; and the outcome of reading something damaged."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType
from typing import Any

from sabiyarn_edge.errors import SabiYarnError
from tests.campaigns.fuzz.mutations import damaged

__all__ = ["Target", "outcome"]

SLOW_SECONDS = 30.0
"""Seconds of CPU time. Readings take milliseconds, under emulation up to some seconds; findings took minutes."""


class Target(ABC):
    """One reader.

    Attributes:
        module: where it is, for the figure of coverage; None where it is not Python.
        allowed: what it may raise.
    """

    module: ModuleType | None
    allowed: tuple[type[Exception], ...] = (SabiYarnError,)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def whole(self) -> bytes:
        """A file with nothing wrong."""

    def make(self, rng: random.Random) -> bytes:
        """A damaged file."""
        return damaged(self.whole(), rng)

    @abstractmethod
    def read(self, content: bytes) -> Any:
        """Read it, and use what was read."""

    def parse(self, content: bytes) -> Any:
        """Read it alone, where using what was read takes much longer."""
        self.read(content)

    def close(self) -> None:  # noqa: B027 - to be overridden where there is something to close
        """Called after the last read."""


def outcome(target: Target, content: bytes, *, use: bool = True) -> str:
    """Read: "read", "refused: ..." or what went wrong, beginning with "FINDING".

    Args:
        use: use what was read, too.
    """
    started = time.process_time()
    try:
        (target.read if use else target.parse)(content)
        result = "read"
    except target.allowed as error:
        result = f"refused: {type(error).__name__}"
    except BaseException as error:  # a panic of a library is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        result = f"FINDING {type(error).__name__}: {str(error)[:150]} ({where})"
    if time.process_time() - started > SLOW_SECONDS:
        result = f"FINDING slow: {time.process_time() - started:.1f} s"
    return result
