"""Arrays of other libraries as NumPy arrays, and back. Imports none of these libraries: who has a tensor, has them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError, SabiYarnError, shown

__all__ = ["as_array", "as_arrays", "as_tensor", "check_count", "readable", "takes_tensors"]

MAX_COUNT = 2**26
"""Most ids of one input: as a list they take 2 GiB. A range or a broadcast array may be longer than memory."""

_MAX_DEPTH = 8
"""Most lists within lists: one that holds itself has no end, and holding another one twice doubles with each."""


_PLAIN = {bool, int, float, str}


@contextmanager
def readable(value: Any, name: str) -> Iterator[None]:
    """Reads an argument: whatever its objects or their libraries raise, the message says which argument it is.

    Raises:
        InvalidInputError: in place of what is neither this package's error nor want of memory.
    """
    try:
        yield
    except (SabiYarnError, MemoryError):
        raise
    except Exception as error:
        raise InvalidInputError(
            f"{name} is {shown(value)}, but must be lists whose rows have equal length, a NumPy array, or a dense "
            f"tensor that has data, of a type that NumPy has ({shown(error)})."
        ) from error


def as_arrays(value: Any, name: str) -> Any:
    """Tensors, also those in a list or from a function, as NumPy arrays (numbers where they have no dimension).

    Everything else is given back as it is.

    Args:
        name: the argument's, for messages.

    Raises:
        InvalidInputError: a tensor or an object that says that it is an array cannot be read as one, or a list is too
            long or too deep.
    """
    with readable(value, name):
        return _read(value, name, 0)


def as_array(value: Any, name: str) -> NDArray[Any]:
    """The same as one array. Args, Raises: as `as_arrays`; rows of unequal length are refused."""
    with readable(value, name):
        return np.asarray(_read(value, name, 0))


def check_count(value: Any, name: str, what: str = "ids") -> None:
    """Raise InvalidInputError for more entries than are copied."""
    if len(value) > MAX_COUNT:
        raise InvalidInputError(
            f"{name} has {len(value)} {what}; at most {MAX_COUNT} are taken. Give parts of it."
        )


def _read(value: Any, name: str, depth: int) -> Any:
    if value is None or isinstance(value, str):
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        wide = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
        return wide.cpu().numpy()[()]
    if isinstance(value, Sequence):
        check_count(value, name, "entries")
    if isinstance(value, list | tuple):
        if _PLAIN.issuperset(map(type, value)):  # a prompt, most often
            return value
        if depth == _MAX_DEPTH:
            raise InvalidInputError(
                f"{name} holds lists within lists, more than {_MAX_DEPTH}. It must be an array."
            )
        return [_read(item, name, depth + 1) for item in value]
    if isinstance(value, np.ndarray | np.generic | type):
        return value
    if hasattr(value, "__array__"):
        return np.asarray(value)[()]
    if callable(value):
        return lambda length: as_arrays(value(length), name)
    return value


def as_tensor(array: NDArray[Any]) -> Any:
    """A torch tensor on the same memory. Only for who has torch: see takes_tensors."""
    return sys.modules["torch"].from_numpy(array)


def takes_tensors(function: Any) -> bool:
    """Whether a callable is one of transformers' classes, or made from one: these compute with torch."""
    bases = {cls.__module__.partition(".")[0] for cls in type(function).__mro__}
    return "transformers" in bases and "torch" in sys.modules
