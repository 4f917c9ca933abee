"""What of a tokenizer's normalizer changes letters: NFC and its kind, apart from marks for spaces and bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

__all__ = ["letter_normalizer"]

_OF_LETTERS = frozenset(
    ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Nmt", "Precompiled")
)
"""Steps after which a text is still what people read. Others (Prepend, Replace, ByteLevel) write what the decoder takes
back: no output ever shows it."""


def letter_normalizer(backend: tokenizers.Tokenizer) -> Any:
    """Return a normalizer of the steps that change letters, in their order; None if there are none."""
    import tokenizers

    if backend.normalizer is None:
        return None
    # A normalizer's pickled state is its JSON. The other way to its settings serializes the vocabulary too.
    steps = [
        step for step in _flat(json.loads(backend.normalizer.__getstate__())) if step["type"] in _OF_LETTERS
    ]
    if not steps:
        return None
    sequence = tokenizers.normalizers.Sequence([])
    sequence.__setstate__(json.dumps({"type": "Sequence", "normalizers": steps}).encode())
    return sequence


def _flat(step: dict[str, Any]) -> list[dict[str, Any]]:
    if step["type"] == "Sequence":
        return [found for part in step["normalizers"] for found in _flat(part)]
    return [step]
