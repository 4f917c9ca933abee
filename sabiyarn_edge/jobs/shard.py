"""Shard: a part of a job for one of several machines that share nothing."""

from __future__ import annotations

import re

from ..errors import InvalidInputError, shown

__all__ = ["Shard", "read_shard"]

Shard = tuple[int, int]
"""(i, n): of the lines that are not empty every n-th, from the i-th on."""


def read_shard(text: str) -> Shard:
    """Read "3/8".

    Raises:
        InvalidInputError: it is something else, or there is no such part.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise InvalidInputError(f"the shard is {shown(text)}; it must be like 3/8, the third of eight parts.")
    return index, count
