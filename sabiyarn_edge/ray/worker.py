"""Worker: what each actor runs. It loads the model once and answers blocks of lines."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import JobError
from ..generator import EdgeGenerator
from ..jobs.asking import Asking
from ..jobs.batch import identity_of, window_for
from ..jobs.dispatch import BLOCKS_EACH
from ..jobs.job import Planned, Record, answered
from ..jobs.ledger import differences
from ..jobs.lines import Request
from ..jobs.source import Source
from ..options.generation_config import OptionWarning

__all__ = ["Worker"]


class Worker:
    """Answers lines. Actors on one machine map the same weights.bin, so its pages are in memory once.

    Args:
        load: arguments of `EdgeGenerator.from_pretrained`.
        arguments: of `Asking`.
        seed: from which those of the lines are derived; None: the option seed, or 0.
        rows: most that run at once, over all its blocks.
    """

    def __init__(
        self, load: Mapping[str, Any], arguments: Mapping[str, Any], seed: int | None, rows: int
    ) -> None:
        self._loading, self._arguments, self._seed, self._rows = load, arguments, seed, rows
        self._planning = threading.Lock()  # blocks are planned in several threads

    def load(self, expected: Mapping[str, Any] | None = None) -> None:
        """Load the model.

        Args:
            expected: what `identity_of` gives for the model that is wanted.

        Raises:
            JobError: this machine has another model under this name.
            SabiYarnError: it cannot be loaded.
        """
        warnings.simplefilter("ignore", OptionWarning)  # said once, by the process that asks
        self.generator = EdgeGenerator.from_pretrained(**self._loading)
        if expected is not None and (found := differences(expected, identity_of(self.generator))):
            raise JobError(
                f"a node has another model at {self._loading['path']}: {'; '.join(found)}. Copy the same folder to all."
            )
        self.asking = Asking(self.generator, **self._arguments)
        self.asking.expect("jsonl")
        if self._seed is not None:
            self.asking.seed = self._seed

    def answer(self, lines: Sequence[tuple[Request, int]]) -> list[Record]:
        """Answer a block of lines, given with their numbers; up to BLOCKS_EACH blocks at once, in threads."""
        window = window_for(self.generator, max(self._rows // BLOCKS_EACH, 1))
        window.most_positions //= BLOCKS_EACH
        return [record for _, record in answered(self._planned(lines), window) if record is not None]

    def answer_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
        """Answer lines of JSONL, each by a record, whatever it holds."""
        planned = ((None, self.asking.plan(line)) for line in Source(rows))
        window = window_for(self.generator, self._rows)
        return [record for _, record in answered(planned, window) if record is not None]

    def _planned(self, lines: Sequence[tuple[Request, int]]) -> Iterator[tuple[None, Planned | None]]:
        for request, number in lines:
            with self._planning:
                planned = self.asking.plan_request(request, number)
            yield None, planned
