"""ValueEquality: == of dataclasses that hold arrays, where dataclass's own raises an error."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["ValueEquality"]


class ValueEquality:
    """Base of dataclasses with `eq=False`: equal are two of one class whose fields are, arrays by shape and content.

    Fields with `compare=False` do not count. There is no hash, as of lists.
    """

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names = [field.name for field in dataclasses.fields(self) if field.compare]  # type: ignore[arg-type]
        return all(_equal(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]


def _equal(one: Any, other: Any) -> bool:
    if hasattr(one, "shape") or hasattr(other, "shape"):  # an array of NumPy, or a tensor
        alike = type(one) is type(other) and one.shape == other.shape
        return alike and _device(one) == _device(other) and bool((one == other).all())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _device(array: Any) -> Any:
    """Where it is: tensors of different devices are not compared."""
    return getattr(array, "device", None)
