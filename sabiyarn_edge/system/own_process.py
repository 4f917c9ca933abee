"""OwnProcess: tells a forked child's copy of an object from the object itself."""

from __future__ import annotations

import os

from ..errors import InvalidInputError

__all__ = ["OwnProcess"]


class OwnProcess:
    """The process that an object was made in.

    Threads do not survive a fork: whoever waits in the child for what a thread of the parent does waits for ever. A
    comparison of process ids also sees the forks of C libraries, of which Python's hooks do not hear.
    """

    def __init__(self) -> None:
        self._id = os.getpid()

    @property
    def is_this(self) -> bool:
        """Whether this is still that process."""
        return os.getpid() == self._id

    def check(self) -> None:
        """Refuse to go on in a forked child.

        Raises:
            InvalidInputError: this is another process.
        """
        if not self.is_this:
            raise InvalidInputError(
                f"this stream, or call, belongs to process {self._id}, and this is process {os.getpid()}, a fork of "
                "it: what the one computes does not come to the other. Start it anew in this process."
            )
