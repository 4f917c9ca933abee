"""A tokenizer that has SabiYarn's tags."""

from __future__ import annotations

import tokenizers
from tokenizers import AddedToken

from tests.tiny_tokenizer import tiny_tokenizer

TAGS = tuple(
    f"<{name}>"
    for name in (
        *(
            "translate",
            "diacritize",
            "correct",
            "clean",
            "classify",
            "sentiment",
            "topic",
            "summarize",
            "summary",
        ),
        *(
            "title",
            "headline",
            "qa",
            "answer",
            "NER",
            "tag",
            "lang_ID",
            "lang_ID_label",
            "prompt",
            "response",
        ),
        *("eng", "yor", "hau", "ibo"),
    )
)


def tagged_tokenizer(*, strips: bool = False) -> tokenizers.Tokenizer:
    """Tags that swallow the white space around them (strips) or not."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens([AddedToken(tag, lstrip=strips, rstrip=strips) for tag in TAGS])
    return tokenizer
