"""Where an ONNX file says its external tensors lie, and how to make it say another place.

The device has no onnx package, and needs only this: of `ModelProto.graph.initializer[]` the name and the
`external_data` entries. Everything else is passed through as the bytes it is.
Source: https://protobuf.dev/programming-guides/encoding/ and onnx.proto (the field numbers below).
"""

from __future__ import annotations

from collections.abc import Callable

from .protobuf import fields, messages, packed, text, with_messages

__all__ = ["read_external_tensors", "replace_external_tensors"]

Entries = dict[str, str]
"""external_data of one tensor: "location", "offset" and "length" in bytes, and what onnxruntime adds."""

_GRAPH, _INITIALIZER, _NAME, _EXTERNAL_DATA, _KEY, _VALUE = 7, 5, 8, 13, 1, 2


def read_external_tensors(model: bytes) -> dict[str, Entries]:
    """Name of each external tensor -> its entries, in the file's order.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """
    found = {}
    for graph in messages(model, _GRAPH):
        for tensor in messages(graph, _INITIALIZER):
            entries = _entries(tensor)
            if entries:
                found[text(tensor, _NAME)] = entries
    return found


def replace_external_tensors(model: bytes, change: Callable[[str, Entries], Entries]) -> bytes:
    """The model with the entries that `change(name, entries)` returns for each external tensor.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """

    def changed_tensor(tensor: bytes) -> bytes:
        entries = _entries(tensor)
        if not entries:
            return tensor
        kept = b"".join(field for number, field, _ in fields(tensor) if number != _EXTERNAL_DATA)
        new = change(text(tensor, _NAME), entries)
        pairs = (packed(_KEY, key.encode()) + packed(_VALUE, value.encode()) for key, value in new.items())
        return kept + b"".join(packed(_EXTERNAL_DATA, pair) for pair in pairs)

    return with_messages(model, _GRAPH, lambda graph: with_messages(graph, _INITIALIZER, changed_tensor))


def _entries(tensor: bytes) -> Entries:
    return {text(pair, _KEY): text(pair, _VALUE) for pair in messages(tensor, _EXTERNAL_DATA)}
