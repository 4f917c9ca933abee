"""Outputs under random schemas, in three ways of decoding, checked with the package jsonschema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import jsonschema

from sabiyarn_edge import EdgeGenerator
from tests.constraints.random_schemas import random_schema

__all__ = ["MODES", "fits", "prove"]

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "seed": 1, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
}


def fits(text: str, schema: dict[str, Any]) -> bool:
    """Whether a text is JSON and valid."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def prove(
    generator: EdgeGenerator, seeds: Iterable[int], *, prompt: str, max_new_tokens: int
) -> Counter[str]:
    """Generate under the schema of each seed in each mode, and count the finish reasons.

    Raises:
        AssertionError: an output that is said to be complete does not fit, or a finished one is said not to be.
    """
    reasons: Counter[str] = Counter()
    for seed in seeds:
        schema = random_schema(seed)
        for mode, options in MODES.items():
            result = generator.generate(prompt, json_schema=schema, max_new_tokens=max_new_tokens, **options)
            assert result.texts is not None and result.complete is not None
            for text, reason, complete in zip(
                result.texts, result.finish_reasons, result.complete, strict=True
            ):
                where = (
                    f"seed {seed}, {mode}, {reason}: {text!r} for {json.dumps(schema, ensure_ascii=False)}"
                )
                assert not complete or fits(text, schema), where
                assert complete or reason in ("length", ""), where  # "": beam search found no more sequences
                reasons[reason] += 1
    return reasons
