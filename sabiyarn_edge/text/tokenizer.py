"""Tokenizer: text to ids and back, over the `tokenizers` library and a model folder's tokenizer.json."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError, ModelFolderError

if TYPE_CHECKING:
    import tokenizers

    from .._core import TokenBytes

__all__ = ["TOKENIZER_FILE", "Tokenizer"]

TOKENIZER_FILE = "tokenizer.json"

# Names of the end token, SabiYarn's first. A tokenizer.json does not say which of its tokens ends a text.
EOS_NAMES = ("|end_of_text|", "<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>")

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PREFIX = re.compile(rb'"continuing_subword_prefix"\s*:\s*"[^"]')


class Tokenizer:
    """Wraps a `tokenizers.Tokenizer`; truncation and padding that its file may ask for are switched off."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.special_ids = frozenset(
            token_id for token_id, token in backend.get_added_tokens_decoder().items() if token.special
        )
        """Ids of special tokens: decode leaves them out unless told otherwise."""
        self.decoder_steps = _decoder_steps(backend.decoder)
        """The decoder's steps in order, as they stand in tokenizer.json. Empty: tokens joined by spaces."""
        self._native_bytes: TokenBytes | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json.

        Raises:
            ModelFolderError: the file is missing or damaged.
        """
        import tokenizers  # here, since a model without a tokenizer needs no such library

        if not Path(path).is_file():
            raise ModelFolderError(f"there is no file {path}. Without a tokenizer, give ids instead of text.")
        try:
            content = Path(path).read_bytes()
            _check_merges(content)
            return cls(tokenizers.Tokenizer.from_buffer(content))
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
        """The ids of a text, with the special tokens that the tokenizer puts around one, if any.

        Raises:
            InvalidInputError: `text` is no str, or holds half a surrogate pair.
        """
        if not isinstance(text, str):
            raise InvalidInputError(f"the text is a {type(text).__name__}; it must be a str.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"the text holds {text[error.start]!a} at position {error.start}, half a surrogate pair, "
                "which is no character. It was probably read with the wrong encoding: read it as UTF-8."
            ) from error
        return list(self.backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids. Ids without a token are left out; bytes that are not UTF-8 become U+FFFD.

        Raises:
            InvalidInputError: an id is no integer or is negative.
        """
        try:
            return str(self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens))
        except (OverflowError, TypeError) as error:
            raise InvalidInputError(f"the ids hold something that is no token id: {error}.") from error

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as it stands in the vocabulary, or None."""
        token_id: int | None = self.backend.token_to_id(token)
        return token_id

    def has_token(self, token_id: int) -> bool:
        """Whether the tokenizer knows this id."""
        return 0 <= token_id < 2**32 and self.backend.id_to_token(token_id) is not None

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to the text when another one stands before it; b"" of an unknown id.

        Exact for byte-level BPE (GPT-2, SabiYarn) and for byte tokens like <0xE1>. With other decoders it is
        what the token adds after a letter; where neighbours change each other this is a guess.
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
        """token_bytes of every id of a model, as the core wants them for stop strings; made once.

        Args:
            vocab_size: the model's. The tokenizer's own ids may have gaps, and then go beyond the number of its tokens.
        """
        if self._native_bytes is None or len(self._native_bytes) != vocab_size:
            from .._core import TokenBytes

            self._native_bytes = TokenBytes([self.token_bytes(token_id) for token_id in range(vocab_size)])
        return self._native_bytes

    def byte_token(self, token_id: int) -> bytes | None:
        """The byte of a token like <0xE1>, if the decoder reads such tokens as bytes."""
        if not self._has_byte_tokens:
            return None
        match = _BYTE_TOKEN.fullmatch(self.backend.id_to_token(token_id) or "")
        return bytes.fromhex(match[1]) if match else None

    @functools.cached_property
    def is_byte_level(self) -> bool:
        """Whether tokens are runs of bytes that decode side by side, with no other rule."""
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

    def find_eos_token_id(self, folder: str | Path | None = None) -> int | None:
        """The id of the token that ends a text, or None.

        Looks into `folder`'s tokenizer_config.json and special_tokens_map.json, then for the usual names.

        Raises:
            ModelFolderError: one of these files is damaged.
        """
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            path = Path(folder or "") / name
            if folder is not None and path.is_file():
                named = _eos_token_in(path)
                if named is not None and (token_id := self.token_to_id(named)) is not None:
                    return token_id
        return next((found for name in EOS_NAMES if (found := self.token_to_id(name)) is not None), None)


def _check_merges(content: bytes) -> None:
    """Raise ValueError for merges that end the process: tokenizers 0.23 aborts where half a letter is cut off.

    From a merge's second token it cuts as many bytes as the prefix of continued words has. Few files name a prefix.
    """
    if not _PREFIX.search(content):
        return
    model = json.loads(content)["model"]
    cut = len(model["continuing_subword_prefix"].encode())
    for merge in model["merges"]:
        token = (merge.split(" ") if isinstance(merge, str) else merge)[1]
        rest = token.encode()[cut:]
        if rest and rest[0] & 0xC0 == 0x80:  # inside a UTF-8 sequence
            raise ValueError(f"the merge {merge} cuts a letter of {token!r} in half")


def _decoder_steps(decoder: Any) -> list[dict[str, Any]]:
    if decoder is None:
        return []

    def flat(step: dict[str, Any]) -> list[dict[str, Any]]:
        return [s for part in step["decoders"] for s in flat(part)] if step["type"] == "Sequence" else [step]

    # A decoder's pickled state is its JSON. The other way to its settings serializes the vocabulary too.
    return flat(json.loads(decoder.__getstate__()))


@functools.cache
def _byte_of_char() -> dict[str, int]:
    """Character that stands for a byte in byte-level BPE -> that byte.

    Printable bytes stand for themselves, the others for the characters from U+0100 on, in order.
    Source: GPT-2, encoder.py, bytes_to_unicode.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _eos_token_in(path: Path) -> str | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        token = values.get("eos_token")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelFolderError(
            f"{path} cannot be read ({error}). It may be damaged: copy it again."
        ) from error
    if isinstance(token, dict):  # an AddedToken with its settings
        token = token.get("content")
    return token if isinstance(token, str) else None
