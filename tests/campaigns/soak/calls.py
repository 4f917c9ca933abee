"""Random calls of every kind, each a function of (seed, number) alone, and what came of each.

What a call gives must not depend on the calls before it, nor on the thread: so the outcome of call 17, made alone, is
the oracle for call 17 made in the middle of thousands. A call that another thread cancelled must have given the
beginning of that outcome.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sabiyarn_edge import EdgeGenerator, GenerationResult, document_mask, prefix_mask
from sabiyarn_edge.errors import InvalidInputError, SabiYarnError

POSITIONS = 600
"""max_length of the generators: capacities of 256, 512 and 600, and texts that slide within a few steps."""

WAYS: list[dict[str, Any]] = [
    {},
    {"renormalize_logits": True},
    {"do_sample": True, "temperature": 1.7, "top_p": 0.9},
    {"do_sample": True, "top_k": 0, "typical_p": 0.8, "num_return_sequences": 3},
    {"do_sample": True, "min_p": 0.02, "epsilon_cutoff": 1e-4, "eta_cutoff": 1e-3},
    {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 1.2},
    {"num_beams": 2, "early_stopping": True},
    {"num_beams": 3, "do_sample": True, "early_stopping": "never"},
    {"prompt_lookup_num_tokens": 4},
]
EXTRAS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 3},
    {"frequency_penalty": 0.4, "presence_penalty": 0.2},
    {"bad_words_ids": [[5], [6, 7]]},
    {"sequence_bias": [[[9], -2.0], [[10, 11], 3.0]]},
    {"suppress_tokens": [3, 4]},
    {"output_scores": True},
    {"eos_token_id": None},
    {"stop_strings": ["a", "ni"]},
    {"stop_strings": "e ", "include_stop_string": True},
]
BAD: list[dict[str, Any]] = [
    {"max_new_tokens": 0},
    {"max_new_tokens": 10**6},
    {"temperature": 0.0, "do_sample": True},
    {"top_p": float("nan"), "do_sample": True},
    {"num_beams": 65},
    {"num_return_sequences": 2},
    {"tpo_k": 3},
    {"eos_token_id": -1},
    {"suppress_tokens": [10**6]},
    {"logits_processor": 7},
    {"overflow": "burst"},
    {"attn_mask": np.ones((2, 3), bool)},
]
TEXTS = ["<yor> Gbogbo ènìyàn", "<eng> Everyone has", "<hau> Su dai", "<ibo> A mụrụ", "x", "ọ́ ọ́ ọ́ ọ́"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a call, which == compares exactly."""

    kind: str
    rows: tuple[tuple[tuple[int, ...], str], ...] = ()
    """(generated ids, finish reason) of each row; for a stream, the ids that were read."""
    ids_are_certain: bool = True
    """True if rows only ever grow (not with beams), so that a cancelled row is the beginning of a complete one."""
    more: tuple[Any, ...] = ()
    """Errors, texts, scores."""
    interrupted: bool = field(default=False, compare=False)
    """True if another thread cancelled something meanwhile. A cancelled search may give a sequence that had ended
    before, so the result alone does not tell."""

    def differs_from(self, alone: Outcome) -> str:
        """ "" if this is what the call gave alone; "cancelled" if it is the beginning of that, and says so; else
        the difference."""
        if self == alone:
            return ""
        cancelled = any(reason == "cancelled" for _, reason in self.rows)
        cancelled = cancelled or (self.interrupted and not self.ids_are_certain)
        if cancelled and self.kind == alone.kind and not (self.ids_are_certain and self._leaves(alone)):
            return "cancelled"
        return f"{self} instead of {alone}"

    def _leaves(self, alone: Outcome) -> bool:
        pairs = zip(self.rows, alone.rows, strict=False)  # a conversation may end before its second turn
        return any(ids != whole[: len(ids)] for (ids, _), (whole, _) in pairs)


class Cancellations:
    """Cancels generators, and knows which calls that may have met."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = self._ended = 0

    def cancel(self, generator: EdgeGenerator) -> None:
        with self._lock:
            self._begun += 1
        generator.cancel()
        with self._lock:
            self._ended += 1

    @property
    def ended(self) -> int:
        """How many have ended; for `since`."""
        with self._lock:
            return self._ended

    def since(self, ended: int) -> bool:
        """Whether one took place, or was taking place, after so many had ended."""
        with self._lock:
            return self._begun > ended


class ReenteredError(Exception):
    """Raised by a callback after the generator refused a call from inside a call, as it should."""


class Calls:
    """Makes calls on a generator.

    Args:
        session_file: a session that was saved with this model, to load.
        scratch: a file of this thread's own, to save sessions to.
        cancellations: of all threads.
    """

    def __init__(
        self,
        generator: EdgeGenerator,
        seed: int,
        session_file: Path,
        scratch: Path,
        cancellations: Cancellations | None = None,
    ) -> None:
        self._cancellations = cancellations or Cancellations()
        self._generator, self._seed = generator, seed
        self._session_file, self._scratch = session_file, scratch
        self._vocab_size = generator.config.gptjx.vocab_size
        self._kinds: dict[Callable[[random.Random], Outcome], int] = {
            self._generate: 44,
            self._batch: 8,
            self._long: 2,
            self._stream: 10,
            self._leave_stream: 10,
            self._converse: 6,
            self._masked: 4,
            self._score: 3,
            self._session: 3,
            self._cancel: 3,
            self._bad: 4,
            self._callback_fails: 2,
            self._callback_calls_back: 1,
        }

    def one(self, number: int) -> Outcome:
        """Make the call of that number."""
        rng = random.Random(f"{self._seed} {number}")
        (kind,) = rng.choices([*self._kinds], [*self._kinds.values()])
        before = self._cancellations.ended
        outcome = kind(rng)
        return replace(outcome, interrupted=self._cancellations.since(before))

    # --- what a call is made of

    def _prompt(self, rng: random.Random, longest: int = 40) -> Any:
        if rng.random() < 0.3:
            return rng.choice(TEXTS)
        length = rng.randint(1, 300 if rng.random() < 0.03 else longest)
        return [rng.randrange(1, self._vocab_size) for _ in range(length)]

    def _options(self, rng: random.Random) -> dict[str, Any]:
        options = {"max_new_tokens": rng.choice([1, 2, 5, 10, 20]), **rng.choice(WAYS)}
        if options.get("do_sample"):
            options["seed"] = rng.randrange(2**64)
        for extra in rng.sample(EXTRAS, rng.choice([0, 0, 1, 2])):
            options |= extra
        if "prompt_lookup_num_tokens" not in options and rng.random() < 0.1:
            options |= {"overflow": "truncate_prompt", "reuse_prefix": False}
        return options

    def _rows(self, result: GenerationResult) -> tuple[tuple[tuple[int, ...], str], ...]:
        ids = map(tuple, result.generated)
        return tuple(zip(ids, result.finish_reasons, strict=True))

    def _outcome(self, kind: str, result: GenerationResult, options: dict[str, Any]) -> Outcome:
        return Outcome(kind, self._rows(result), options.get("num_beams", 1) == 1, tuple(result.texts or ()))

    # --- kinds of calls

    def _generate(self, rng: random.Random) -> Outcome:
        options = self._options(rng)
        return self._outcome("generate", self._generator.generate(self._prompt(rng), **options), options)

    def _batch(self, rng: random.Random) -> Outcome:
        options = self._options(rng)
        prompts = [self._prompt(rng, 20) for _ in range(rng.randint(2, 5))]
        return self._outcome("batch", self._generator.generate(prompts, **options), options)

    def _long(self, rng: random.Random) -> Outcome:
        """A text that slides."""
        options = {**self._options(rng), "overflow": "slide", "keep_tokens": rng.randint(0, 5)}
        options["max_new_tokens"] = 30
        prompt = [
            rng.randrange(1, self._vocab_size) for _ in range(rng.randint(POSITIONS - 25, POSITIONS + 5))
        ]
        return self._outcome("long", self._generator.generate(prompt, **options), options)

    def _stream(self, rng: random.Random) -> Outcome:
        options = self._stream_options(rng)
        stream = self._generator.stream(self._prompt(rng), **options)
        text = "".join(token.text for token in stream)
        assert stream.result is not None
        return Outcome("stream", self._rows(stream.result), options.get("num_beams", 1) == 1, (text,))

    def _leave_stream(self, rng: random.Random) -> Outcome:
        """A stream that is left halfway: closed, or dropped and seen to by Python."""
        options = {**self._stream_options(rng), "max_new_tokens": 20}
        wanted, dropped = rng.randint(0, 10), rng.random() < 0.5
        stream = self._generator.stream(self._prompt(rng), **options)
        ids, reason = [], ""
        for _, token in zip(range(wanted), stream, strict=False):
            ids.append(token.token_id)
            reason = token.finish_reason
        if stream.result is not None:
            reason = stream.result.finish_reasons[0]
        if dropped:
            del stream
        else:
            stream.close()
        if (
            options.get("num_beams", 1) > 1
        ):  # a cancelled search ends with other beams, and this one was left unasked
            return Outcome("left stream")
        return Outcome("left stream", ((tuple(ids), reason),))

    def _stream_options(self, rng: random.Random) -> dict[str, Any]:
        options = self._options(rng)
        options.pop("num_return_sequences", None)
        return options

    def _converse(self, rng: random.Random) -> Outcome:
        """Two turns, the second on top of the first, whose keys and values may still be there."""
        session = self._generator.session(self._prompt(rng))
        first = session.generate(max_new_tokens=5)
        if first.finish_reasons == ["cancelled"]:
            return Outcome("conversation", self._rows(first))
        fork = session.fork()
        second = session.generate([rng.randrange(1, self._vocab_size)], max_new_tokens=5)
        if rng.random() < 0.3:  # the fork's turn, for which it is kept what the session had
            fork.generate([rng.randrange(1, self._vocab_size)], max_new_tokens=3)
            session.truncate(len(fork.tokens) // 2)
        return Outcome("conversation", self._rows(first) + self._rows(second))

    def _masked(self, rng: random.Random) -> Outcome:
        ids = [rng.randrange(1, self._vocab_size) for _ in range(rng.randint(2, 30))]
        mask = prefix_mask(len(ids)) if rng.random() < 0.5 else document_mask(ids, separator_id=ids[0])
        options = {"max_new_tokens": rng.randint(1, 6)}
        return self._outcome("masked", self._generator.generate(ids, attn_mask=mask, **options), options)

    def _score(self, rng: random.Random) -> Outcome:
        texts = [self._prompt(rng) for _ in range(2)]
        return Outcome("score", more=tuple(score.total for score in self._generator.score(texts)))

    def _session(self, rng: random.Random) -> Outcome:
        """Load a session, go on with it and save it."""
        session = self._generator.load_session(self._session_file)
        ids = session.tokens
        result = session.generate([rng.randrange(1, self._vocab_size)], max_new_tokens=5)
        session.save(self._scratch)
        return Outcome("session", self._rows(result), more=tuple(ids))

    def _cancel(self, rng: random.Random) -> Outcome:
        """A call that one of its own functions cancels."""
        length = rng.randint(1, 10)

        def cancel(ids: Any, scores: None) -> bool:
            nonlocal length
            length -= 1
            if length == 0:
                self._cancellations.cancel(self._generator)
            return False

        options = {"max_new_tokens": 30, "eos_token_id": None}
        result = self._generator.generate(self._prompt(rng), stopping_criteria=cancel, **options)
        return Outcome("cancel", self._rows(result))

    def _bad(self, rng: random.Random) -> Outcome:
        if rng.random() < 0.3:
            inputs, options = rng.choice([[], [[]], "", [10**6], 3.5, b"x", [1.5], [[1], "\ud800"]]), {}
        else:
            inputs, options = self._prompt(rng), rng.choice(BAD)
        try:
            if rng.random() < 0.5:
                self._generator.generate(inputs, **options)
            else:
                next(self._generator.stream(inputs, **options))
        except SabiYarnError as error:
            return Outcome("bad", more=(type(error).__name__, str(error)))
        raise AssertionError(f"{inputs!r} with {options} was not refused")

    def _callback_fails(self, rng: random.Random) -> Outcome:
        steps = rng.randint(1, 4)

        def refuse(ids: Any, scores: Any) -> Any:
            nonlocal steps
            steps -= 1
            return scores if steps else 1 / 0

        options = {"max_new_tokens": 5, "eos_token_id": None}
        try:
            result = self._generator.generate(self._prompt(rng), logits_processor=refuse, **options)
        except ZeroDivisionError as error:
            return Outcome("failing callback", more=(str(error),))
        return Outcome(
            "failing callback", self._rows(result)
        )  # another thread cancelled before the last step

    def _callback_calls_back(self, rng: random.Random) -> Outcome:
        """A function of a call may not call the generator: it would wait for itself."""
        again = rng.choice([lambda: self._generator.generate([1]), self._generator.free_kv_cache])

        def call_back(index: int, ids: Any) -> Any:
            try:
                again()
            except InvalidInputError as error:
                raise ReenteredError(str(error)) from error
            return [1]

        try:
            result = self._generator.generate(self._prompt(rng), prefix_allowed_tokens_fn=call_back)
        except ReenteredError as error:
            return Outcome("calling back", more=(str(error),))
        return Outcome("calling back", self._rows(result))  # cancelled during prefill
