"""Seeded random JSON schemas of the keywords that can be followed, most of them bounded so that an output ends."""

from __future__ import annotations

import random
from typing import Any

__all__ = ["random_schema"]

NAMES = ("name", "age", "orúkọ", "x y", 'quo"te', "ọjọ́_orí", "a", "tags", "id")
TEXTS = ("bẹ́ẹ̀ ni", "rárá", "yes", "no", "", 'say "a"\n', "\\", "é")
PATTERNS = ("^[a-c]{1,4}$", "^[0-9]{3}-[0-9]{2}$", "^(ẹ|ọ)+x$", "^a", "z$")


def random_schema(seed: int) -> dict[str, Any]:
    """The schema of a seed; an object in most cases."""
    rng = random.Random(seed)
    schema = _object(rng, 2) if rng.random() < 0.7 else _any(rng, 2)
    if rng.random() < 0.2:  # one that refers to itself, and may end at any depth
        node = {
            "type": "object",
            "properties": {"v": _leaf(rng), "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["v", "next"],
            "additionalProperties": False,
        }
        schema = {"$defs": {"node": node}, **(schema if rng.random() < 0.5 else {"$ref": "#/$defs/node"})}
    return schema


def _any(rng: random.Random, depth: int) -> dict[str, Any]:
    if depth == 0:
        return _leaf(rng)
    return rng.choice([_leaf, lambda r: _object(r, depth - 1), lambda r: _array(r, depth - 1), _union])(rng)


def _leaf(rng: random.Random) -> dict[str, Any]:
    return rng.choice([_string, _string, _integer, _number, _constant, lambda _: {"type": "boolean"}])(rng)


def _union(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.3:
        return {"type": rng.sample(["boolean", "null", "integer"], 2)}
    return {"anyOf": [_leaf(rng) for _ in range(rng.randint(2, 3))]}


def _constant(rng: random.Random) -> dict[str, Any]:
    values = [
        *rng.sample(TEXTS, 3),
        rng.randint(-99, 99),
        None,
        True,
        1.5,
        [1, "a"],
        {"k": rng.choice(TEXTS)},
    ]
    return (
        {"const": rng.choice(values)}
        if rng.random() < 0.3
        else {"enum": rng.sample(values, rng.randint(1, 4))}
    )


def _string(rng: random.Random) -> dict[str, Any]:
    kind = rng.random()
    if kind < 0.3:
        return {"type": "string", "pattern": rng.choice(PATTERNS), "maxLength": rng.choice([8, 12])}
    if kind < 0.45:
        return {"type": "string", "format": rng.choice(["date", "time", "uuid", "ipv4", "email"])}
    least = rng.choice([0, 0, 1, 3])
    return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 8)}


def _integer(rng: random.Random) -> dict[str, Any]:
    least = rng.randint(-150, 150)
    schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": least + rng.randint(0, 300)}
    if rng.random() < 0.2:
        return {"type": "integer", "exclusiveMinimum": least, "exclusiveMaximum": least + rng.randint(20, 50)}
    if rng.random() < 0.2:
        schema |= {"multipleOf": rng.choice([2, 5]), "minimum": 0, "maximum": 100}
    return schema


def _number(rng: random.Random) -> dict[str, Any]:
    return (
        {"type": "number"}
        if rng.random() < 0.3
        else {"type": "number", "minimum": 0, "maximum": rng.randint(1, 9)}
    )


def _array(rng: random.Random, depth: int) -> dict[str, Any]:
    least = rng.randint(0, 2)
    schema = {
        "type": "array",
        "items": _any(rng, depth),
        "minItems": least,
        "maxItems": least + rng.randint(0, 2),
    }
    if rng.random() < 0.2:
        return {
            "type": "array",
            "prefixItems": [_leaf(rng), _leaf(rng)],
            "items": False,
            "minItems": rng.randint(0, 2),
        }
    return schema


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(NAMES, rng.randint(1, 4))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _any(rng, depth) for name in names},
        "required": rng.sample(names, rng.randint(0, len(names))),
        "additionalProperties": False,
    }
    if rng.random() < 0.15:
        schema["additionalProperties"] = rng.choice([True, {"type": "boolean"}, {"type": "integer"}])
    return schema
