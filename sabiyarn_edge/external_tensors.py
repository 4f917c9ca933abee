"""Where an ONNX file says its external tensors lie, and how to make it say another place.

The device has no onnx package, and needs only this: of `ModelProto.graph.initializer[]` the name and the
`external_data` entries, and which nodes read them. Everything else is passed through as the bytes it is.
Source: https://protobuf.dev/programming-guides/encoding/ and onnx.proto (the field numbers below).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

__all__ = ["read_external_tensors", "read_nodes", "replace_external_tensors"]

Entries = dict[str, str]
"""external_data of one tensor: "location", "offset" and "length" in bytes, and what onnxruntime adds."""

_GRAPH, _INITIALIZER, _NAME, _EXTERNAL_DATA, _KEY, _VALUE = 7, 5, 8, 13, 1, 2
_NODE, _INPUT, _OUTPUT, _OP_TYPE = 1, 1, 2, 4
_BYTES = 2  # wire type: length, then bytes


def read_external_tensors(model: bytes) -> dict[str, Entries]:
    """Name of each external tensor -> its entries, in the file's order.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """
    found = {}
    for graph in _messages(model, _GRAPH):
        for tensor in _messages(graph, _INITIALIZER):
            entries = _entries(tensor)
            if entries:
                found[_text(tensor, _NAME)] = entries
    return found


def read_nodes(model: bytes) -> Iterator[tuple[str, list[str], list[str]]]:
    """(operator, names of its inputs, names of its outputs) of each node, in the file's order.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """
    for graph in _messages(model, _GRAPH):
        for node in _messages(graph, _NODE):
            inputs, outputs = (
                [name.decode() for name in _messages(node, field)] for field in (_INPUT, _OUTPUT)
            )
            yield _text(node, _OP_TYPE), inputs, outputs


def replace_external_tensors(model: bytes, change: Callable[[str, Entries], Entries]) -> bytes:
    """The model with the entries that `change(name, entries)` returns for each external tensor.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """

    def changed_tensor(tensor: bytes) -> bytes:
        entries = _entries(tensor)
        if not entries:
            return tensor
        kept = b"".join(field for number, field, _ in _fields(tensor) if number != _EXTERNAL_DATA)
        new = change(_text(tensor, _NAME), entries)
        pairs = (_packed(_KEY, key.encode()) + _packed(_VALUE, value.encode()) for key, value in new.items())
        return kept + b"".join(_packed(_EXTERNAL_DATA, pair) for pair in pairs)

    return _with_messages(model, _GRAPH, lambda graph: _with_messages(graph, _INITIALIZER, changed_tensor))


def _entries(tensor: bytes) -> Entries:
    return {_text(pair, _KEY): _text(pair, _VALUE) for pair in _messages(tensor, _EXTERNAL_DATA)}


def _text(message: bytes, wanted: int) -> str:
    return next((part.decode() for part in _messages(message, wanted)), "")


def _messages(message: bytes, wanted: int) -> Iterator[bytes]:
    return (content for number, _, content in _fields(message) if number == wanted and content is not None)


def _with_messages(message: bytes, wanted: int, change: Callable[[bytes], bytes]) -> bytes:
    return b"".join(
        _packed(wanted, change(content)) if number == wanted and content is not None else field
        for number, field, content in _fields(message)
    )


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes | None]]:
    """(number, the field's bytes, its content if it is of length-delimited kind) of each field."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        content = None
        match tag & 7:
            case 0:  # varint
                _, at = _varint(message, at)
            case 1:  # 64 bits
                at += 8
            case 2:  # length and bytes
                length, at = _varint(message, at)
                content = message[at : at + length]
                at += length
            case 5:  # 32 bits
                at += 4
            case kind:
                raise ValueError(f"not an ONNX model: wire type {kind} at byte {start}")
        if at > len(message):
            raise ValueError(f"not an ONNX model: a field at byte {start} runs past the end")
        yield tag >> 3, message[start:at], content


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(value, where the next byte is)."""
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("not an ONNX model: it ends inside a number")


def _packed(number: int, content: bytes) -> bytes:
    return _to_varint(number << 3 | _BYTES) + _to_varint(len(content)) + content


def _to_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
