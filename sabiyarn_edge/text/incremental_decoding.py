"""Decoders that take tokens one by one and give the text that no later token changes.

Their pieces join to the text that Tokenizer.decode gives for all tokens at once. The time of a token does not grow with
the number of tokens, except with the unusual tokenizers that need _FullDecoder.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Sequence

from .tokenizer import Tokenizer

__all__ = ["IncrementalDecoder", "incremental_decoder"]


class IncrementalDecoder(ABC):
    """A stage of a text stream: ids in, text out."""

    @abstractmethod
    def push(self, token_id: int) -> str:
        """Take one token. Returns the text that has become final."""

    @abstractmethod
    def flush(self) -> str:
        """Return the rest of the text, after the last token."""

    def decode_all(self, token_ids: Sequence[int]) -> str:
        """Return the text of all tokens, before the first push."""
        return "".join([*map(self.push, token_ids), self.flush()])


def incremental_decoder(
    tokenizer: Tokenizer, *, prompt_ids: Sequence[int] = (), skipped_ids: frozenset[int] | None = None
) -> IncrementalDecoder:
    """Make the decoder that fits the tokenizer.

    Args:
        prompt_ids: ids before the first token. Their text is not given. Some tokenizers treat the beginning of a text
            specially (Metaspace drops a space there); these ids tell them that the text began earlier.
        skipped_ids: ids that give no text; None: the special tokens.
    """
    if skipped_ids is None:
        skipped_ids = tokenizer.special_ids
    if tokenizer.is_byte_level:
        return _ByteLevelDecoder(tokenizer, skipped_ids)
    decoder = _WindowDecoder if _is_local(tokenizer) else _FullDecoder
    return decoder(tokenizer, prompt_ids, skipped_ids)


def _is_local(tokenizer: Tokenizer) -> bool:
    """Return True if a token's text depends on its neighbours only.

    This holds for every step that works on single tokens or on runs of bytes. After Fuse has joined them, a step sees
    the complete text: Strip looks at its ends only, others (Replace) may change any part.
    """
    steps = [step["type"] for step in tokenizer.decoder_steps]
    per_token = {"Replace", "Metaspace", "WordPiece", "BPEDecoder", "ByteFallback", "Strip", "CTC"}
    fused = steps.index("Fuse") if "Fuse" in steps else len(steps)
    return set(steps[:fused]) <= per_token and set(steps[fused + 1 :]) <= {"Strip"}


class _ByteLevelDecoder(IncrementalDecoder):
    """Decodes byte-level BPE: tokens are bytes of UTF-8, and neighbours change nothing."""

    def __init__(self, tokenizer: Tokenizer, skipped_ids: frozenset[int]) -> None:
        self._tokenizer, self._skipped = tokenizer, skipped_ids
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return "" if token_id in self._skipped else self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)

    def decode_all(self, token_ids: Sequence[int]) -> str:
        shown = [token_id for token_id in token_ids if token_id not in self._skipped]
        return self._tokenizer.decode(shown, skip_special_tokens=False)


def _is_decoded(tokenizer: Tokenizer, token_id: int, skipped_ids: frozenset[int]) -> bool:
    """Return False for tokens that are left out before decoding, so that they do not separate their neighbours."""
    return token_id not in skipped_ids and tokenizer.has_token(token_id)


class _WindowDecoder(IncrementalDecoder):
    """Decodes the last few tokens each time, for decoders whose tokens depend on their neighbours only."""

    _ENOUGH = 16  # tokens in the window at which a shorter one is tried

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], skipped_ids: frozenset[int]) -> None:
        self._tokenizer, self._skipped = tokenizer, skipped_ids
        self._limit = self._ENOUGH
        self._window = [token_id for token_id in prompt_ids if _is_decoded(tokenizer, token_id, skipped_ids)]
        # Characters of the window's text that have been given, or belong to the prompt.
        self._shown = len(self._decode(self._window))
        self._shorten()

    def push(self, token_id: int) -> str:
        if not _is_decoded(self._tokenizer, token_id, self._skipped):
            return ""
        self._window.append(token_id)
        # A run of byte tokens becomes text or U+FFFD as one, and only its end decides.
        return "" if self._tokenizer.byte_token(token_id) is not None else self.flush()

    def flush(self) -> str:
        text = self._decode(self._window)
        new, self._shown = text[self._shown :], len(text)
        if len(self._window) >= self._limit:
            self._shorten()
        return new

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _shorten(self) -> None:
        """Drop the window's older tokens if the rest decodes the same without them."""
        stripped = {step["content"] for step in self._tokenizer.decoder_steps if step["type"] == "Strip"}
        length = self._ENOUGH // 4
        while length < len(self._window) and self._tokenizer.byte_token(self._window[-1]) is None:
            tail = self._window[-length:]
            text = self._decode(tail)
            if set(text) - stripped:  # else Strip, at the text's ends, could reach past the tail
                self._window, self._shown = tail, len(text)
                break
            length *= 2
        self._limit = 2 * max(len(self._window), self._ENOUGH // 2)


class _FullDecoder(IncrementalDecoder):
    """Decodes all tokens each time, for any other decoder, in time that grows with their number.

    Exact as long as later tokens do not change earlier text. Once they do, the rest waits for the end.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], skipped_ids: frozenset[int]) -> None:
        self._tokenizer, self._skipped = tokenizer, skipped_ids
        self._ids = [token_id for token_id in prompt_ids if token_id not in skipped_ids]
        self._shown = self._decode()

    def push(self, token_id: int) -> str:
        if not _is_decoded(self._tokenizer, token_id, self._skipped):
            return ""
        self._ids.append(token_id)
        if self._tokenizer.byte_token(token_id) is not None:  # the run of bytes may not be over
            return ""
        text = self._decode().rstrip("\ufffd")  # half a character, which the next token may complete
        if not text.startswith(self._shown):
            return ""
        new, self._shown = text[len(self._shown) :], text
        return new

    def flush(self) -> str:
        text = self._decode()
        while not text.startswith(self._shown):
            self._shown = self._shown[:-1]
        return text[len(self._shown) :]

    def _decode(self) -> str:
        return self._tokenizer.decode(self._ids, skip_special_tokens=False)
