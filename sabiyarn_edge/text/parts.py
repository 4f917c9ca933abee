"""PartEncoder reads control tokens in a template's parts of a text, and as plain characters in what a user gave.

A control token steers the model: a special token, or another added token that looks like a tag (<tool_call>, [INST]).
Added tokens that are words of a language are words, whoever writes them.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ModelFolderError, shown
from .characters import check_characters

if TYPE_CHECKING:
    import tokenizers

__all__ = ["EncodedParts", "PartEncoder", "encoded"]

_NEVER_TYPED = "\U0010ffff"
"""A noncharacter: no text holds it, so a vocabulary's entry that begins with it is never read."""

_LONG_TEXT = 2**14
"""Characters. encode() holds the GIL, 25 ms for so many; encode_batch() does not, but may start threads of its own."""


def encoded(
    backend: tokenizers.Tokenizer, text: str, *, add_special_tokens: bool = False
) -> tokenizers.Encoding:
    """Have the library encode a text.

    Raises:
        InvalidInputError: the text holds half a surrogate pair.
        ModelFolderError: the library refuses, as for want of the token for unknown letters.
    """
    check_characters(text)
    try:
        if len(text) > _LONG_TEXT:
            return backend.encode_batch([text], add_special_tokens=add_special_tokens)[0]
        return backend.encode(text, add_special_tokens=add_special_tokens)
    except Exception as error:  # the library raises bare ones
        raise ModelFolderError(
            f"the tokenizer cannot encode the text ({shown(error)}). tokenizer.json may be damaged: copy it again."
        ) from error


@dataclass(frozen=True)
class EncodedParts:
    """Ids of a joined text."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """Of each id: (first, end), the characters that it was read from. Equal where it was read from none."""


class PartEncoder:
    """Encodes texts that are joined of parts.

    Args:
        backend: the tokenizer. It is not changed.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self.control_ids = frozenset(
            token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.special or _is_tag(token.content)
        )
        """Ids of control tokens."""

    def control_spans(self, text: str) -> list[tuple[int, int]]:
        """Return (first, end) of each run of characters that is read as a control token, white space aside.

        Raises: as `encoded`.
        """
        encoding = encoded(self._backend, text)
        found = []
        for token_id, (first, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token_id in self.control_ids:
                token = text[first:end]
                first += len(token) - len(token.lstrip())
                found.append((first, first + len(token.strip())))
        return found

    def encode(self, parts: Sequence[tuple[str, bool]], *, add_special_tokens: bool = True) -> EncodedParts:
        """Return the joined text's ids; a control token that a user's part has a share in is read as text.

        Args:
            parts: (text, whether its control tokens are read as such).
            add_special_tokens: put those around it that the tokenizer puts around a text.

        Raises: as `encoded`.
        """
        joined = "".join(text for text, _ in parts)
        encoding = encoded(self._backend, joined, add_special_tokens=add_special_tokens)
        users = self._control_in_users_text(encoding, parts)
        if not users:
            return EncodedParts(list(encoding.ids), list(encoding.offsets))
        import tokenizers

        pieces: list[tokenizers.Encoding] = []
        spans: list[tuple[int, int]] = []
        end = 0
        for first, last in [*users, (len(joined), len(joined))]:
            for backend, start, stop in ((self._backend, end, first), (self._without_control, first, last)):
                pieces.append(encoded(backend, joined[start:stop]))
                spans += [(start + a, start + b) for a, b in pieces[-1].offsets]
            end = last
        merged = tokenizers.Encoding.merge(pieces, growing_offsets=True)
        if not add_special_tokens:
            return EncodedParts(list(merged.ids), spans)
        ids = list(self._backend.post_process(merged, add_special_tokens=True).ids)
        before = _index_of(merged.ids, ids)
        after = len(ids) - len(spans) - before
        return EncodedParts(ids, [(0, 0)] * before + spans + [(len(joined),) * 2] * after)

    def _control_in_users_text(
        self, encoding: tokenizers.Encoding, parts: Sequence[tuple[str, bool]]
    ) -> list[tuple[int, int]]:
        """Where in the joined text (first, end) a control token was read in what a user gave, white space aside."""
        found = []
        for token_id, (first, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token_id not in self.control_ids or first == end:  # without characters: what surrounds a text
                continue
            begin = 0
            for text, is_template in parts:
                if not is_template and text[max(first - begin, 0) : max(end - begin, 0)].strip():
                    found.append((first, end))
                    break
                begin += len(text)
        return found

    @functools.cached_property
    def _without_control(self) -> tokenizers.Tokenizer:
        """The same tokenizer, to which the texts of control tokens are text."""
        import tokenizers

        settings = json.loads(self._backend.to_str())
        control = {token["content"] for token in settings["added_tokens"] if token["id"] in self.control_ids}
        added = [token for token in settings["added_tokens"] if token["id"] not in self.control_ids]
        model = _without_entries(settings["model"], control)
        return tokenizers.Tokenizer.from_str(
            json.dumps({**settings, "model": model, "added_tokens": added, "post_processor": None})
        )


def _without_entries(model: dict[str, Any], texts: set[str]) -> dict[str, Any]:
    """Return a model's settings in which no text is read as one of its entries `texts`; all ids stay.

    A vocabulary may hold its control tokens as entries of its own (Unigram, WordLevel), which would be read again.
    """

    def renamed(text: str) -> str:
        return f"{_NEVER_TYPED}{text}" if text in texts else text

    vocab = model["vocab"]
    if isinstance(vocab, list):  # Unigram
        return {**model, "vocab": [[renamed(text), score] for text, score in vocab]}
    if "merges" in model:  # they name entries, so these stay: nothing leads to them
        merges = [merge for merge in model["merges"] if _merged(merge) not in texts]
        return {**model, "merges": merges, "ignore_merges": False}
    unknown = {"unk_token": renamed(model["unk_token"])} if "unk_token" in model else {}
    return {**model, **unknown, "vocab": {renamed(text): token for text, token in vocab.items()}}


def _merged(merge: str | list[str]) -> str:
    return "".join(merge.split(" ") if isinstance(merge, str) else merge)


def _is_tag(token: str) -> bool:
    """Return True for letters between signs, like <yor> or |end_of_text|."""
    ends = {unicodedata.category(char)[0] for char in (token[:1], token[-1:]) if char}
    return ends <= {"P", "S"} and any(char.isalpha() for char in token)


def _index_of(inner: Sequence[int], outer: Sequence[int]) -> int:
    """Where the ids `inner` stand in `outer`, which has others around them."""
    length = len(inner)
    return next(at for at in range(len(outer) - length + 1) if list(outer[at : at + length]) == list(inner))
