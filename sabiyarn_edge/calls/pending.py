"""Pending: a call of generate between the moment it was decided and the moment its result is read."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.generation import Generation
from ..text.tokenizer import Tokenizer
from .outcome import result_of
from .request import Call
from .result import GenerationResult

__all__ = ["Pending"]


class Pending:
    """A checked call and its works.

    Args:
        works: of the call, one for each prompt.
        started: `time.perf_counter()` when the caller called.
    """

    def __init__(
        self, call: Call, works: Sequence[Generation], tokenizer: Tokenizer | None, started: float
    ) -> None:
        self.works = works
        self._call, self._tokenizer, self._started = call, tokenizer, started

    def result(self) -> GenerationResult:
        """Return the works' results, once all have ended without an error."""
        return result_of(self._call, self.works, self._tokenizer, self._started)
