"""OneReader: what is read once, by one reader."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex

from ..errors import InvalidInputError

__all__ = ["OneReader"]


class OneReader:
    """Mixed into streams: refuses copy, deepcopy and pickle. The end of a copy would end what both read from."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse.

        Raises:
            InvalidInputError: always.
        """
        raise InvalidInputError(
            f"a {type(self).__name__} cannot be copied or pickled: it has one reader, in this process. Copy its tokens "
            "or its result, or start another one."
        )
