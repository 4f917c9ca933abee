"""Reads protobuf's encoding, as far as the nodes of an ONNX file need it: a device has no onnx, which knows the fields.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["fields", "messages", "number_in", "text"]

_MOST_VARINT_BITS = 70  # ten bytes of seven bits each hold 64


def text(message: bytes, wanted: int) -> str:
    """The text in a field; empty if there is none."""
    return next((part.decode() for part in messages(message, wanted)), "")


def messages(message: bytes, wanted: int) -> Iterator[bytes]:
    """The contents of all fields of this number: messages, texts or bytes."""
    return (content for number, _, content in fields(message) if number == wanted and content is not None)


def fields(message: bytes) -> Iterator[tuple[int, bytes, bytes | None]]:
    """(number, the field's bytes, its content if it is of length-delimited kind) of each field."""
    at = 0
    while at < len(message):
        start = at
        tag, at = varint(message, at)
        content = None
        match tag & 7:
            case 0:  # varint
                _, at = varint(message, at)
            case 1:  # 64 bits
                at += 8
            case 2:  # length and bytes
                length, at = varint(message, at)
                content = message[at : at + length]
                at += length
            case 5:  # 32 bits
                at += 4
            case kind:
                raise ValueError(f"not an ONNX model: wire type {kind} at byte {start}")
        if at > len(message):
            raise ValueError(f"not an ONNX model: a field at byte {start} runs past the end")
        yield tag >> 3, message[start:at], content


def number_in(message: bytes, wanted: int) -> int:
    """The signed integer in a field; 0 if there is none, as protobuf leaves zeros out."""
    found = (field for number, field, content in fields(message) if number == wanted and content is None)
    value = next((varint(field, varint(field, 0)[1])[0] for field in found), 0)
    return value - (1 << 64) if value >= 1 << 63 else value


def varint(message: bytes, at: int) -> tuple[int, int]:
    """(value, where the next byte is)."""
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift >= _MOST_VARINT_BITS:
            raise ValueError(f"not an ONNX model: a number of more than 64 bits ends at byte {at}")
    raise ValueError("not an ONNX model: it ends inside a number")
