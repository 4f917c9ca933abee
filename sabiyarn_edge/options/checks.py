"""Checks of single options: each turns (name, value) into the normal form, or raises InvalidInputError.

Numbers may be NumPy scalars; a bool is never a number, and NaN and infinities are never values.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, shortened, shown
from ..system.json_text import parse_json
from ..text.characters import check_characters

__all__ = [
    "Check",
    "added_score",
    "bias_of_sequences",
    "choice",
    "flag",
    "grammar",
    "index_of_repeated",
    "integer",
    "json_schema",
    "many",
    "memory_mib",
    "number",
    "one_or_many",
    "optional",
    "path",
    "regex",
    "text",
    "texts",
    "unfinished_regex",
]

Check = Callable[[str, Any], Any]

MAX_SEED = 2**64 - 1
LARGEST_BIAS = 1e9
"""Largest number that an option adds to a score, either way: it decides against any logits, and leaves float32 room."""
LARGEST = 2**31 - 1
"""Largest token id and count: the core keeps ids in 32 bits."""
MAX_ENTRIES = 2**20
"""Most entries of a list: more than any vocabulary has. A range or an iterator may be longer than memory."""


def _refuse(name: str, value: Any, allowed: str, hint: str = "") -> InvalidInputError:
    return InvalidInputError(f"{name} is {shown(value)}, but must be {allowed}.{' ' + hint if hint else ''}")


def integer(*, at_least: int = 0, at_most: int = LARGEST, hint: str = "") -> Check:
    """Make a check for an integer in [at_least, at_most]."""
    allowed = f"an integer of at least {at_least}"

    def check(name: str, value: Any) -> int:
        cause = None
        try:
            number = None if isinstance(value, bool) else operator.index(value)
        except Exception as error:  # no integer, or an object that fails
            number, cause = None, error
        if number is None or number < at_least or number > at_most:
            too_large = at_most != LARGEST or (number is not None and number > at_most)
            span = f"an integer from {at_least} to {at_most}"
            raise _refuse(name, value, span if too_large else allowed, hint) from cause
        return number

    return check


def number(
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    hint: str = "",
) -> Check:
    """Make a check for a finite number within the bounds. The normal form is a float."""
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("above", above), ("at least", at_least), ("below", below), ("at most", at_most))
        if bound is not None
    ]
    allowed = " ".join(["a finite number", " and ".join(bounds)]).strip()

    def check(name: str, value: Any) -> float:
        if (
            not _is_finite(value)
            or (above is not None and not value > above)
            or (at_least is not None and not value >= at_least)
            or (below is not None and not value < below)
            or (at_most is not None and not value <= at_most)
        ):
            raise _refuse(name, value, allowed, hint)
        return float(value)

    return check


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer or a fraction beyond all floats
        return False


added_score = number(at_least=-LARGEST_BIAS, at_most=LARGEST_BIAS)
"""Check for what is added to a score, or subtracted from it."""

memory_mib = number(above=0, at_most=1e9)
"""Check for MiB of memory: more than 1 PB no machine has."""


def flag(name: str, value: Any) -> bool:
    """Check for True or False."""
    if not isinstance(value, bool):
        raise _refuse(name, value, "True or False")
    return value


def choice(*allowed: bool | str) -> Check:
    """Make a check for one of the given values; 1 is not True."""

    def check(name: str, value: Any) -> Any:
        for candidate in allowed:
            if type(value) is type(candidate) and value == candidate:
                return candidate
        raise _refuse(name, value, " or ".join(repr(candidate) for candidate in allowed))

    return check


def text(name: str, value: Any, *, may_be_empty: bool = False) -> str:
    """Check for a text without half surrogate pairs, of at least one character unless it may be empty."""
    if not isinstance(value, str) or not (value or may_be_empty):
        raise _refuse(name, value, "a text" if may_be_empty else "a text of at least one character")
    check_characters(value, name)
    return value


def regex(name: str, value: Any) -> str:
    """Check for a regular expression; whether llguidance can follow it shows when it is compiled."""
    expression = text(name, value)
    if unfinished_regex(expression):
        raise _refuse(name, value, "a regular expression", _UNFINISHED)
    return expression


_UNFINISHED = r"A backslash at the end needs the character that it escapes: \\ stands for one."


def unfinished_regex(expression: str) -> bool:
    """Return True if the last backslash escapes nothing, which llguidance would overlook."""
    return (len(expression) - len(expression.rstrip("\\"))) % 2 == 1


def path(name: str, value: Any) -> Path:
    """Check for the name of a file or folder, a text or a pathlib.Path, that this system takes."""
    found: Any = None
    hint, cause = "", None
    try:
        found = os.fspath(value)
        os.lstat(found)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            found, hint = None, f"The system takes none of {len(found)} characters."
    except Exception as error:  # no path, a zero byte, half a surrogate pair, or an object that fails
        found, cause = None, error
    if not isinstance(found, str) or not found:
        raise _refuse(
            name, value, "a path: a text of at least one character, or a pathlib.Path", hint
        ) from cause
    return Path(found)


def optional(check: Check) -> Check:
    """Make a check for None, or for a value that passes `check`."""
    return lambda name, value: None if value is None else check(name, value)


def many(check: Check, *, may_be_empty: bool = True) -> Check:
    """Make a check for a list (or tuple, set, array) of values that pass `check`.

    The normal form is a tuple; None for an empty list, if that is allowed.
    """

    def check_all(name: str, value: Any) -> tuple[Any, ...] | None:
        if not _is_list(value):
            raise _refuse(name, value, "a list")
        items = tuple(
            check(f"{name}[{index}]", item)
            for index, item in enumerate(itertools.islice(value, MAX_ENTRIES + 1))
        )
        if len(items) > MAX_ENTRIES:
            raise _refuse(name, value, f"a list of at most {MAX_ENTRIES} entries")
        if not items and not may_be_empty:
            raise _refuse(name, value, "a list of at least one entry")
        return items or None

    return check_all


def one_or_many(check: Check) -> Check:
    """Make a check for one value that passes `check`, or for a list of them. The normal form of a list is a tuple."""
    check_all = many(check)

    def check_either(name: str, value: Any) -> Any:
        return check_all(name, value) if _is_list(value) else check(name, value)

    return check_either


MAX_TEXTS_BYTES = 100_000
"""Most bytes of all texts together: an automaton of them takes about 100 bytes for each."""


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Check for a list of different texts of at least one character each. The normal form is a tuple."""
    items: tuple[str, ...] = many(text, may_be_empty=False)(name, value)
    total = sum(len(item.encode()) for item in items)
    if total > MAX_TEXTS_BYTES:
        raise InvalidInputError(f"{name} holds {total} bytes of text; at most {MAX_TEXTS_BYTES} are allowed.")
    again = index_of_repeated(items)
    if again is not None:
        raise InvalidInputError(f"{name} holds {shown(items[again])} twice. Leave one out.")
    return items


def index_of_repeated(items: Sequence[str]) -> int | None:
    """Return the index of the first item that stands before it too; None if all differ."""
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item in seen:
            return index
        seen.add(item)
    return None


def json_schema(name: str, value: Any) -> str:
    """Check for a JSON schema: a dict, True, or its JSON text. The normal form is the text."""
    schema = value
    if isinstance(value, str):
        try:
            schema = parse_json(value)
        except ValueError as error:
            raise InvalidInputError(f"{name} is not JSON: {error}.") from error
    if not isinstance(schema, Mapping) and schema is not True:
        raise _refuse(name, value, "a JSON schema: a dict, or its JSON text")
    try:
        made = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} cannot be written as JSON: {error}.") from error
    check_characters(made, name)
    for part in _parts(schema):
        _check_part(name, part)
    _check_multiples(name, [schema])
    return made


def grammar(name: str, value: Any) -> str:
    """Check for a text whose `%json {...}`, if it has some, are JSON schemas."""
    written = text(name, value)
    schemas = []
    for found in re.finditer(r"%json\s*", written):
        try:
            schema, _ = json.JSONDecoder().raw_decode(written, found.end())
        except (ValueError, RecursionError):  # llguidance tells where
            continue
        json_schema(f"%json of {name}", schema)
        schemas.append(schema)
    _check_multiples(f"%json of {name}", schemas)
    return written


_NUMBERS = ("const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
"""Keywords whose numbers decide what fits."""
_LARGEST_NUMBER = 2**53
"""llguidance reads numbers as doubles: beyond this not every integer is one, and bounds are cut to 17 digits."""


def _check_part(name: str, part: Mapping[str, Any]) -> None:
    expressions = part.get("patternProperties")
    for pattern in (part.get("pattern"), *(expressions if isinstance(expressions, Mapping) else ())):
        if isinstance(pattern, str) and unfinished_regex(pattern):
            raise _refuse(f"a pattern in {name}", pattern, "a regular expression", _UNFINISHED)
    for key in _NUMBERS:
        for number in _numbers(part.get(key)):
            if abs(number) > _LARGEST_NUMBER:
                is_data = key in ("const", "enum")
                hint = f'write it as a string: "{number}"' if is_data else f"leave {key} out"
                raise _refuse(
                    f"a number of {key} in {name}",
                    number,
                    f"from {-_LARGEST_NUMBER} to {_LARGEST_NUMBER}",
                    f"Larger ones would be rounded. Take the nearest of these, or {hint}.",
                )
    least, required = part.get("minProperties"), part.get("required")
    named = len(set(map(str, required))) if isinstance(required, list | tuple) else 0
    if isinstance(least, int | float) and least > max(1, named):
        raise _refuse(
            f"minProperties in {name}",
            least,
            f"at most {max(1, named)}",
            "Only names in the required beside it count: others may come twice. Add names there, or leave it out.",
        )


_MOST_REMAINDERS = 200_000
"""llguidance follows each remainder of a number divided by its multipleOf: so many take some seconds and 100 MB. It has
no bound of its own, and where several meet (allOf, $ref) it follows their least common multiple."""


def _check_multiples(name: str, schemas: Iterable[Any]) -> None:
    found = [
        abs(number)
        for schema in schemas
        for part in _parts(schema)
        for number in _numbers(part.get("multipleOf"))
        if number and not isinstance(number, bool)
    ]
    # The least common multiple of fractions has that of their numerators; a multiple that is an integer has it too.
    common = math.lcm(*(Fraction(str(number)).numerator for number in found))
    if common * len(found) > _MOST_REMAINDERS:
        values = shortened(", ".join(map(str, found)))
        if len(found) > 1:
            values += f", {len(found)} times {shortened(str(common), 30)}, their least common multiple"
        raise InvalidInputError(
            f"{name} has multipleOf {values}, but at most {_MOST_REMAINDERS} remainders can be followed. Take smaller "
            "or fewer numbers, or leave multipleOf out and check what comes."
        )


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a JSON schema and the schemas in it, but not its data."""
    parts = [schema]  # no recursion: schemas may be deep
    while parts:
        part = parts.pop()
        if isinstance(part, list | tuple):
            parts += part
        if not isinstance(part, Mapping):
            continue
        yield part
        for key, value in part.items():
            if key in ("properties", "patternProperties", "$defs", "definitions") and isinstance(
                value, Mapping
            ):
                parts += value.values()  # its keys are names, or expressions
            elif key not in ("const", "enum", "default", "examples"):
                parts.append(value)


def _numbers(data: Any) -> Iterator[int | float]:
    """Yield the numbers in a JSON value."""
    values = [data]
    while values:
        value = values.pop()
        if isinstance(value, int | float):
            yield value
        elif isinstance(value, list | tuple):
            values += value
        elif isinstance(value, Mapping):
            values += value.values()


def bias_of_sequences(name: str, value: Any) -> tuple[tuple[tuple[int, ...], float], ...] | None:
    """Check for {(id, ...): bias} or [[[id, ...], bias], ...]. The normal form is a tuple of ((id, ...), bias)."""
    pairs = value.items() if isinstance(value, Mapping) else value
    if not _is_list(pairs):
        raise _refuse(name, value, "a dict {(id, ...): bias} or a list of [[id, ...], bias]")
    check_ids, check_bias = many(integer(), may_be_empty=False), added_score
    biases = {}
    for pair in pairs:
        if not _is_list(pair) or len(entry := tuple(itertools.islice(pair, 3))) != 2:
            raise _refuse(f"an entry of {name}", pair, "[[id, ...], bias]")
        ids = check_ids(f"the ids of an entry of {name}", entry[0])
        biases[ids] = check_bias(f"the bias of {shown(list(ids))} in {name}", entry[1])
    return tuple(biases.items()) or None


def _is_list(value: Any) -> bool:
    """Whether `value` holds others; an array of no dimension is a number."""
    return (
        isinstance(value, Iterable)
        and not isinstance(value, str | bytes | Mapping)
        and getattr(value, "ndim", 1) > 0
    )
