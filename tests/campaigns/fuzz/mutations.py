"""Damages files as disks, copies and attackers do. Every function draws from the given random.Random."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ODD_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    2**31 - 1,
    2**31,
    2**63,
    2**70,
    -(2**70),
    0.5,
    -0.0,
    1e-320,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    "1",
    "\0",
    "a\0b",
    "\ud800",
    "../x",
    "x" * 300,
    [],
    [[]],
    [1, "x"],
    {},
    {"a": 1},
    [0] * 300,
]
ODD_TEXTS = [
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"1e999",
    b"-",
    b"9" * 5000,
    b"\xff\xfe",
    b"\x00",
    b'"\\ud800"',
    b"",
]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four places changed."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        content = _one_change(content, rng)
    return content


def _one_change(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return rng.choice(ODD_TEXTS)
    at = rng.randrange(len(content)) if rng.random() < 0.5 else rng.randrange(min(len(content), 256))
    size = min(rng.choice([1, 1, 2, 4, 8, 64]), len(content) - at)
    kind = rng.randrange(7)
    if kind == 0:
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    if kind == 1:
        return content[:at] + rng.randbytes(size) + content[at + size :]
    if kind == 2:
        return content[:at]
    if kind == 3:
        return content[:at] + content[at + size :]
    if kind == 4:
        return content[:at] + content[at : at + size] * 2 + content[at + size :]
    if kind == 5:
        return content[:at] + rng.choice([b"\x00", b"\xff"]) * size + content[at + size :]
    return content[:at] + rng.choice(ODD_TEXTS) + content[at:]


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON text with one to three values replaced, removed or added; now and then damaged as bytes instead."""
    if rng.random() < 0.3:
        return damaged(content, rng)
    value = json.loads(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        value = _other_value(value, rng)
    return json.dumps(value).encode()


def _other_value(value: Any, rng: random.Random) -> Any:
    """`value` with something in it changed, at any depth."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return copy.deepcopy(rng.choice(ODD_VALUES))
    place = rng.choice([*value]) if isinstance(value, dict) else rng.randrange(len(value))
    kind = rng.random()
    if kind < 0.15:
        del value[place]
    elif kind < 0.25 and isinstance(value, dict):
        value[rng.choice([*value, "x", ""])] = value.pop(place)
    else:
        value[place] = _other_value(value[place], rng)
    return value
