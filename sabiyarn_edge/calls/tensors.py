"""Arrays of other libraries as NumPy arrays, and back. Imports none of these libraries: who has a tensor, has them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError

__all__ = ["as_arrays", "as_tensor", "takes_tensors"]


def as_arrays(value: Any) -> Any:
    """Tensors, also those in a list or from a function, as NumPy arrays (numbers where they have no dimension).

    Everything else is given back as it is.

    Raises:
        InvalidInputError: an object says that it is an array, and cannot be read as one.
    """
    if value is None or isinstance(value, str):
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        wide = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
        return wide.cpu().numpy()[()]
    if isinstance(value, list | tuple):
        if not value or isinstance(value[0], int | str):  # a prompt: no look at each of its ids
            return value
        return [as_arrays(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | type):
        return value
    if _is_array_of_others(value):
        try:
            return np.asarray(value)[()]
        except Exception as error:  # another library's
            raise InvalidInputError(
                f"a {type(value).__name__} cannot be read as an array: {error}. Give a list or a NumPy array."
            ) from error
    if callable(value):
        return lambda length: as_arrays(value(length))
    return value


def as_tensor(array: NDArray[Any]) -> Any:
    """A torch tensor on the same memory. Only for who has torch: see takes_tensors."""
    return sys.modules["torch"].from_numpy(array)


def takes_tensors(function: Any) -> bool:
    """Whether a callable is one of transformers' classes, or made from one: these compute with torch."""
    bases = {cls.__module__.partition(".")[0] for cls in type(function).__mro__}
    return "transformers" in bases and "torch" in sys.modules


def _is_array_of_others(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, np.ndarray | np.generic | type)
