"""ConstraintVocabulary: what each token writes, in the forms that constraints need. Each form is made once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from .._core import TokenBytes, TokenOrder
from ..errors import InvalidInputError
from ..system.process_memory import return_free_memory
from ..text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance

__all__ = ["ConstraintVocabulary"]

_TOKEN_BY_TOKEN = {"Replace", "Metaspace", "ByteFallback", "Fuse", "Strip"}
"""Steps of decoders behind which a text is its tokens' bytes, one after another, but for blanks at its beginning."""


class ConstraintVocabulary:
    """The tokens of a model's vocabulary as bytes. Special tokens write no text.

    Args:
        tokenizer: the model's.
        vocab_size: the model's; ids that the tokenizer does not know write nothing.

    Raises:
        InvalidInputError: the tokenizer's decoder makes a text of tokens in a way that depends on their neighbours.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.tokenizer, self.vocab_size = tokenizer, vocab_size
        self.special_ids = sorted(token for token in tokenizer.special_ids if token < vocab_size)
        steps = tokenizer.decoder_steps
        kinds = {str(step["type"]) for step in steps}
        if not tokenizer.is_byte_level and (
            not kinds or kinds - _TOKEN_BY_TOKEN or any(step.get("stop", 0) for step in steps)
        ):
            raise InvalidInputError(
                f"the tokenizer's decoder ({', '.join(sorted(kinds)) or 'none'}) changes tokens by what stands beside "
                "them, so that the text of an output cannot be held to a constraint. Byte-level tokenizers, and those "
                "of SentencePiece, can."
            )

    @functools.cached_property
    def token_bytes(self) -> TokenBytes:
        """The bytes that each id writes behind another one."""
        return self.tokenizer.native_bytes(self.vocab_size)

    def writes_text(self, token: int) -> bool:
        """Return whether a token adds anything to the text."""
        return token not in self.tokenizer.special_ids and bool(self.token_bytes[token])

    @functools.cached_property
    def not_first(self) -> tuple[int, ...]:
        """Ids that write something else at the beginning of a text: blanks are dropped there. They cannot be first."""
        if self.tokenizer.is_byte_level:
            return ()
        return tuple(token for token in range(self.vocab_size) if self._changes_in_front(token))

    def _changes_in_front(self, token: int) -> bool:
        written = self.token_bytes[token]
        if not written.isascii() and self.tokenizer.byte_token(token) is not None:  # a part of a character
            return False
        return self.tokenizer.decode([token], skip_special_tokens=False).encode() != written

    @functools.cached_property
    def order(self) -> TokenOrder:
        """The ids by their bytes, for choices."""
        return TokenOrder(self.token_bytes, self.special_ids)

    @functools.cached_property
    def guidance(self) -> llguidance.LLTokenizer:
        """The vocabulary as llguidance takes it, about 560 bytes for each id.

        It has one id more, behind the last: its end token, whose bit says that a text is complete.
        """
        from llguidance import LLTokenizer, TokenizerWrapper

        made = LLTokenizer(
            TokenizerWrapper(_Tokens(self)), n_vocab=self.vocab_size + 1, eos_token=self.vocab_size
        )
        return_free_memory()
        return made


class _Tokens:
    """What llguidance's TokenizerWrapper reads."""

    bos_token_id = None

    def __init__(self, vocabulary: ConstraintVocabulary) -> None:
        size = vocabulary.vocab_size
        self.eos_token_id = size
        self.tokens = [vocabulary.token_bytes[token] for token in range(size)] + [b""]
        self.special_token_ids = [*vocabulary.special_ids, size]

    def __call__(self, text: str) -> list[int]:
        """Tokenize: asked for only by grammars that force tokens, and ours do not."""
        return []
