"""TextStream turns generated tokens into pieces of text that no later token changes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .grapheme import GraphemeHold
from .incremental_decoding import incremental_decoder
from .stop_hold import StopHold
from .tokenizer import Tokenizer

__all__ = ["StreamedToken", "TextStream"]


@dataclass(frozen=True, kw_only=True)
class StreamedToken:
    """One step of a stream."""

    text: str
    """Text that became final with this token. It often belongs to earlier tokens, and may be empty."""
    token_id: int
    """Id of the token."""
    index: int
    """Number of tokens generated before it."""
    finish_reason: str = ""
    """Why generation ended with this token ("eos", "stop", "length", "time", "cancelled"); "" before that."""


class TextStream:
    """Joins tokens to text. Pieces begin and end at borders between letters (grapheme clusters).

    The pieces of all `push` and of `flush` together are the text that Tokenizer.decode gives for all tokens (after
    `prompt_ids`, if given), without the stop string.

    Args:
        prompt_ids: the ids before the first token, for tokenizers that begin a text in a special way.
        stop_strings: held back until they can no longer complete, and cut off if they ended the generation.
            Leave them out to show them.
        skip_special_tokens: True if special tokens give no text.
        shown_ids: special tokens that give their text even so.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        prompt_ids: Sequence[int] = (),
        stop_strings: Sequence[str] = (),
        skip_special_tokens: bool = True,
        shown_ids: Collection[int] = (),
    ) -> None:
        skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        if shown_ids:
            skipped = skipped.difference(shown_ids)
        self._decoder = incremental_decoder(tokenizer, prompt_ids=prompt_ids, skipped_ids=skipped)
        self._stops = StopHold(stop_strings)
        self._letters = GraphemeHold()

    def push(self, token_id: int) -> str:
        """Take one token. Returns the text that is final."""
        return self._letters.push(self._stops.push(self._decoder.push(token_id)))

    def join(self, token_ids: Sequence[int], finish_reason: str = "") -> str:
        """Return the text of all tokens: what `push` of each and `flush` would give together."""
        if finish_reason != "stop":  # nothing is cut off
            return self._decoder.decode_all(token_ids)
        return "".join([*map(self.push, token_ids), self.flush(finish_reason)])

    def flush(self, finish_reason: str = "") -> str:
        """Return the rest of the text, after the last token.

        Args:
            finish_reason: "stop" if a stop string ended the generation: it and the text behind it are cut off.
        """
        rest = self._stops.finish(self._decoder.flush(), stopped=finish_reason == "stop")
        return self._letters.push(rest) + self._letters.flush()
