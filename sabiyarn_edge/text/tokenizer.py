"""Tokenizer turns text into ids and back, with the `tokenizers` library and a model folder's tokenizer.json."""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError, ModelFolderError, shown
from ..system.json_text import parse_json
from ..system.regular_file import read_regular_file
from .normalization import letter_normalizer
from .parts import PartEncoder, encoded

if TYPE_CHECKING:
    import tokenizers

    from .._core import TokenBytes

__all__ = ["TOKENIZER_FILE", "Tokenizer"]

TOKENIZER_FILE = "tokenizer.json"
_LONGEST_FILE = 256 * 2**20
"""Bytes of a tokenizer.json. SabiYarn's has 3 MiB, the largest of well-known models 33."""

_ADDED_TOKENS = re.compile(rb'"added_tokens"\s*:\s*')
_ESCAPED_LETTER = re.compile(rb"\\u00[567]")
_MOST_TEXT = 5000**2
"""Sum of the squares of added tokens' lengths: of that order is the time in which the library prepares to search texts
for them (1 s for a token of 5000 characters). A thousand tokens of 30 make a million."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PREFIX = re.compile(rb'"continuing_subword_prefix"\s*:\s*"[^"]')


class Tokenizer:
    """Wraps a `tokenizers.Tokenizer`; truncation and padding that its file may ask for are switched off.

    Args:
        backend: the library's.
        num_ids: ids of the model, from 0 on, which may be more than the tokens. Default: all that the library takes.
    """

    def __init__(self, backend: tokenizers.Tokenizer, num_ids: int = 2**32) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend, self._num_ids = backend, num_ids
        self.special_ids = frozenset(
            token_id for token_id, token in backend.get_added_tokens_decoder().items() if token.special
        )
        """Ids of special tokens: decode leaves them out unless told otherwise."""
        self.decoder_steps = _decoder_steps(backend.decoder)
        """The decoder's steps in order, as they stand in tokenizer.json. Empty: tokens joined by spaces."""
        self._native_bytes: TokenBytes | None = None

    @classmethod
    def from_file(cls, path: str | Path, num_ids: int = 2**32) -> Tokenizer:
        """Read a tokenizer.json.

        Args:
            path: of the file.
            num_ids: see the class.

        Raises:
            ModelFolderError: the file is missing or damaged.
        """
        import tokenizers  # here, since a model without a tokenizer needs no such library

        try:
            content = read_regular_file(path, at_most=_LONGEST_FILE)
        except FileNotFoundError:
            raise ModelFolderError(
                f"there is no file {path}. Without a tokenizer, give ids instead of text."
            ) from None
        except OSError as error:
            raise ModelFolderError(f"cannot read {path}: {error.strerror or error}.") from error
        try:
            _check_merges(content)
            _check_added_tokens(content)
            return cls(tokenizers.Tokenizer.from_buffer(content), num_ids)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises bare Exception, and its panics are not even that
            raise ModelFolderError(
                f"{path} is not a tokenizer ({error}). It may be damaged: copy it again."
            ) from error

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included. The model's own vocab_size may be larger (padding)."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of a text, with the special tokens that the tokenizer puts around one, if any.

        Raises:
            InvalidInputError: `text` is not a str, or holds half a surrogate pair.
            ModelFolderError: the library refuses, as for want of the token for unknown letters.
        """
        if not isinstance(text, str):
            raise InvalidInputError(f"the text is a {type(text).__name__}; it must be a str.")
        return list(encoded(self.backend, text, add_special_tokens=add_special_tokens).ids)

    def encode_parts(
        self, parts: Sequence[tuple[str, bool]], *, add_special_tokens: bool = True
    ) -> list[int]:
        """Return the ids of a text that is joined of a template's parts and of parts that a user gave.

        The ids are those of the joined text, but a control token that stands in a user's part is read as text.

        Args:
            parts: (text, whether its control tokens are read as such).
            add_special_tokens: put those around it that the tokenizer puts around a text.

        Raises:
            InvalidInputError: a part holds half a surrogate pair.
        """
        return self.parts.encode(parts, add_special_tokens=add_special_tokens).ids

    @functools.cached_property
    def parts(self) -> PartEncoder:
        """What tells control tokens apart from the same characters typed by a user."""
        return PartEncoder(self.backend)

    def normalized(self, text: str) -> str:
        """Return a text with the letters that the tokenizer makes of it, in NFC with SabiYarn's.

        Prompts come out of the encoding so. A text that is looked for in the output is compared in this form.
        """
        normalizer = self._letter_normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    @functools.cached_property
    def _letter_normalizer(self) -> Any:
        return letter_normalizer(self.backend)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of ids. Ids without a token are left out; bytes that are not UTF-8 become U+FFFD.

        Raises:
            InvalidInputError: an id is not an integer, or is none of the model's.
        """
        try:
            listed = list(ids)
            if not listed or max(listed) < self._num_ids:
                return str(self.backend.decode(listed, skip_special_tokens=skip_special_tokens))
        except (OverflowError, TypeError):  # the library refuses what is negative or no integer
            listed = list(ids) if isinstance(ids, Iterable) else [ids]
        index, wrong = next(
            ((i, token) for i, token in enumerate(listed) if not self._is_id(token)), (0, listed)
        )
        raise InvalidInputError(
            f"the ids hold {shown(wrong)} at index {index}, which is no token id: these are 0 to {self._num_ids - 1}."
        )

    def _is_id(self, token: Any) -> bool:
        try:
            return 0 <= operator.index(token) < self._num_ids
        except TypeError:
            return False

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token of the vocabulary, or None."""
        token_id: int | None = self.backend.token_to_id(token)
        return token_id

    def has_token(self, token_id: int) -> bool:
        """Return True if the tokenizer knows this id."""
        return 0 <= token_id < 2**32 and self.backend.id_to_token(token_id) is not None

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token adds to the text behind another one; b"" for an unknown id.

        Exact for byte-level BPE (GPT-2, SabiYarn) and for byte tokens like <0xE1>. With other decoders these are the
        bytes that the token adds behind a letter: a guess, if neighbours change each other.
        """
        token = self.backend.id_to_token(token_id) if 0 <= token_id < 2**32 else None
        if token is None:
            return b""
        if self._has_byte_characters:
            try:
                return bytes(map(_byte_of_char().__getitem__, token))
            except KeyError:
                return str(token).encode()  # as the library's decoder does
        if byte := self.byte_token(token_id):
            return byte
        before = self.decode(self._anchor)
        return self.decode([*self._anchor, token_id], skip_special_tokens=False)[len(before) :].encode()

    def native_bytes(self, vocab_size: int) -> TokenBytes:
        """Return the token_bytes of every id of a model in the core's form, for stop strings. They are made once.

        Args:
            vocab_size: of the model. The tokenizer's ids may have gaps, and may then exceed the number of its tokens.
        """
        if self._native_bytes is None or len(self._native_bytes) != vocab_size:
            from .._core import TokenBytes

            self._native_bytes = TokenBytes([self.token_bytes(token_id) for token_id in range(vocab_size)])
        return self._native_bytes

    def byte_token(self, token_id: int) -> bytes | None:
        """Return the byte of a token like <0xE1> if the decoder reads such tokens as bytes, else None."""
        if not self._has_byte_tokens:
            return None
        match = _BYTE_TOKEN.fullmatch(self.backend.id_to_token(token_id) or "")
        return bytes.fromhex(match[1]) if match else None

    @functools.cached_property
    def is_byte_level(self) -> bool:
        """True if tokens are runs of bytes that decode side by side, with no other rule."""
        return [step["type"] for step in self.decoder_steps] == ["ByteLevel"]

    @functools.cached_property
    def _has_byte_characters(self) -> bool:
        return any(step["type"] == "ByteLevel" for step in self.decoder_steps)

    @functools.cached_property
    def _has_byte_tokens(self) -> bool:
        return any(step["type"] == "ByteFallback" for step in self.decoder_steps)

    @functools.cached_property
    def _anchor(self) -> list[int]:
        """One token with a letter in it, so that what follows is not at the beginning of the text."""
        for token_id in sorted(self.backend.get_vocab().values()):
            if token_id not in self.special_ids and any(char.isalpha() for char in self.decode([token_id])):
                return [token_id]
        return []


def _check_merges(content: bytes) -> None:
    """Raise ValueError for merges that would end the process: tokenizers 0.23 aborts when it cuts a letter in half.

    It cuts the length of the continuing-subword prefix, in bytes, from a merge's second token. Few files name a prefix.
    """
    if not _PREFIX.search(content):
        return
    model = json.loads(content)["model"]
    cut = len(model["continuing_subword_prefix"].encode())
    for merge in model.get("merges", ()):  # WordPiece has none, and cuts nothing
        token = (merge.split(" ") if isinstance(merge, str) else merge)[1]
        rest = token.encode()[cut:]
        if rest and rest[0] & 0xC0 == 0x80:  # inside a UTF-8 sequence
            raise ValueError(f"the merge {merge} cuts a letter of {token!r} in half")


def _check_added_tokens(content: bytes) -> None:
    """Raise ValueError for added tokens that the library would work on for minutes."""
    places = [found.end() for found in _ADDED_TOKENS.finditer(content)]
    try:
        if len(places) == 1 and not _ESCAPED_LETTER.search(content):
            added, _ = json.JSONDecoder().raw_decode(content[places[0] :].decode())
        else:  # the name is spelled with escapes, or several times
            added = parse_json(content)["added_tokens"]
        lengths = [len(token["content"]) for token in added]
    except (LookupError, RecursionError, TypeError, ValueError):
        return  # the library says what is wrong
    if sum(length**2 for length in lengths) > _MOST_TEXT:
        raise ValueError(
            f"its {len(lengths)} added tokens have up to {max(lengths)} characters; the sum of the squares of their "
            f"lengths may be {_MOST_TEXT}"
        )


def _decoder_steps(decoder: Any) -> list[dict[str, Any]]:
    if decoder is None:
        return []

    def flat(step: dict[str, Any]) -> list[dict[str, Any]]:
        return [s for part in step["decoders"] for s in flat(part)] if step["type"] == "Sequence" else [step]

    # A decoder's pickled state is its JSON. The other way to its settings serializes the vocabulary too.
    return flat(json.loads(decoder.__getstate__()))


@functools.cache
def _byte_of_char() -> dict[str, int]:
    """Return the byte of each character that stands for one in byte-level BPE.

    Printable bytes stand for themselves, the others for the characters from U+0100 on, in order.
    Source: GPT-2, encoder.py, bytes_to_unicode.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
