"""Names standard output in its errors: of a full disk the system says neither which file it is, nor which stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["output_errors_named"]


@contextmanager
def output_errors_named() -> Iterator[None]:
    """Have errors of writing say that standard output is meant.

    Raises:
        BrokenPipeError: as it is: the reader has what it wanted.
        OSError: standard output cannot be written.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"cannot write standard output: {error.strerror or error}.") from error
