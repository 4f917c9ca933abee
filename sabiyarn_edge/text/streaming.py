"""Text as it is generated: TextStream turns tokens into pieces of text that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Text that became final with this token; often that of the tokens before it, and empty at times."""
    token_id: int
    """Id of the token."""
    index: int
    """How many tokens were generated before it."""
    finish_reason: str = ""
    """Why generation ended with this token ("eos", "stop", "length", "time", "cancelled"); "" before that."""


class TextStream:
    """Joins tokens to text. Pieces begin and end at borders between letters (grapheme clusters).

    The pieces of all `push` and of `flush` together are what Tokenizer.decode gives for all tokens (after
    `prompt_ids`, if given), less the stop string.

    Args:
        prompt_ids: the ids before the first token, for tokenizers that begin a text in a special way.
        stop_strings: held back until they can no longer complete, and cut off when they ended the generation.
            Leave them out to have them shown.
        skip_special_tokens: whether special tokens give no text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        prompt_ids: Sequence[int] = (),
        stop_strings: Sequence[str] = (),
        skip_special_tokens: bool = True,
    ) -> None:
        self._decoder = incremental_decoder(
            tokenizer, prompt_ids=prompt_ids, skip_special_tokens=skip_special_tokens
        )
        self._stops = StopHold(stop_strings)
        self._letters = GraphemeHold()

    def push(self, token_id: int) -> str:
        """Take one token; return the text that is final."""
        return self._letters.push(self._stops.push(self._decoder.push(token_id)))

    def flush(self, finish_reason: str = "") -> str:
        """The rest of the text, after the last token.

        Args:
            finish_reason: "stop" if a stop string ended the generation: it and what follows it is cut off.
        """
        rest = self._stops.finish(self._decoder.flush(), stopped=finish_reason == "stop")
        return self._letters.push(rest) + self._letters.flush()
