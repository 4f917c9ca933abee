"""Small tokenizers made of given tokens, byte-level and with byte fallback."""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from sabiyarn_edge.text.tokenizer import Tokenizer

END = "<end>"
"""A special token, id 0 of every tokenizer here."""


def byte_level(tokens: Sequence[bytes]) -> Tokenizer:
    """END, then the tokens, as byte-level BPE writes them down."""
    names = [END, *("".join(_CHARACTERS[byte] for byte in token) for token in tokens)]
    backend = tokenizers.Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(END, special=True)])
    return Tokenizer(backend)


def byte_fallback(tokens: Sequence[str]) -> Tokenizer:
    """END, a token for each byte, then the tokens, as Llama's tokenizer has them: a blank is written U+2581."""
    names = [END, *(f"<0x{byte:02X}>" for byte in range(256)), *(token.replace(" ", "▁") for token in tokens)]
    vocab = {name: i for i, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(END, special=True)])
    return Tokenizer(backend)


def word_pieces() -> Tokenizer:
    """A tokenizer whose decoder joins tokens in a way that depends on their neighbours."""
    backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    return Tokenizer(backend)


def _characters() -> list[str]:
    """The character of each byte in byte-level BPE. Source: GPT-2, encoder.py."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_CHARACTERS = _characters()
EVERY_BYTE = [bytes([byte]) for byte in range(256)]
