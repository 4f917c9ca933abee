"""TaskRun: runs the prompts of one task for a request, as a whole or streamed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..tasks.planned_task import PlannedTask
from .service import ServedModel, Service
from .usage import Usage

if TYPE_CHECKING:
    from ..calls.asynchronous import AsyncTokenStream
    from ..calls.request import Call
    from ..calls.result import GenerationResult

__all__ = ["TaskPiece", "TaskRun"]


@dataclass(frozen=True)
class TaskPiece:
    """What is added to the answer of one text."""

    index: int
    """Of the text."""
    text: str
    reason: str = ""
    """At the answer's end: "stop", or "length" if a part of it was cut."""


class TaskRun:
    """One request. What is not written when its time is over is cut.

    Raises:
        HttpError: there is no room.
    """

    def __init__(self, service: Service, model: ServedModel, planned: PlannedTask) -> None:
        self._service, self._model, self._planned = service, model, planned
        self._metrics = service.metrics
        self._end = service.end_of_time()
        self.usage = Usage(sum(len(prompt) for prompt, _ in planned.prompts))
        self._cut = [False] * len(planned.prompts)
        self._own_limit = [False] * len(planned.prompts)
        self._opened: deque[AsyncTokenStream] = deque()
        self._next = 0  # prompt to open
        rows = (
            1
            if planned.choices
            else min(len(planned.prompts), planned.call.max_in_flight) * planned.call.config.num_beams
        )
        self._leave = model.admit(rows, self._metrics, "num_beams")
        self._waited = model.is_full  # for a row

    def close(self) -> None:
        """End what still runs, within a step, and free the rows."""
        for stream in self._opened:
            stream.close()
        self._leave()

    async def answers(self) -> tuple[list[Any], list[str]]:
        """Of each text the answer and how it ended, "stop" or "length". Cancelling the task ends it."""
        planned = self._planned
        if planned.choices:
            prompts = [prompt for prompt, _ in planned.prompts]
            generator = self._model.generator
            scoring = generator._achoice_log_probs(prompts, [planned.choices] * len(prompts))
            scores = await self._service.whole(scoring, self._end)
            self._metrics.prompt_tokens[self._model.name] += self.usage.prompt
            return planned.classified(scores), ["stop"] * len(prompts)
        room = asyncio.Semaphore(planned.call.max_in_flight)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(self._run(index, room)) for index in range(len(planned.prompts))]
        texts = [task.result() for task in running]
        self.usage.check_begun(own_limit=all(self._own_limit))
        return planned.answers(texts), self._reasons()

    async def _run(self, index: int, room: asyncio.Semaphore) -> str:
        async with room:
            result = await self._model.generator._arun(*await self._decided(index))
        self._count(index, result)
        return result.text or ""

    async def open(self) -> None:
        """Begin the first streams, so that whatever is refused is refused now."""
        try:
            while len(self._opened) < self._planned.call.max_in_flight and self._next < len(
                self._planned.prompts
            ):
                call = await self._decided(self._next)
                self._opened.append(self._model.generator._aopen(*call))
                self._next += 1
        except BaseException:
            self.close()
            raise

    async def pieces(self) -> AsyncIterator[TaskPiece]:
        """The pieces of all answers, text by text.

        Prompts run side by side all the same: what comes of later ones waits for its turn.
        """
        prompt = 0
        layout = self._planned.layout()
        try:
            for index, parts in enumerate(layout):
                first = prompt
                for part in parts:
                    if part is not None:
                        yield TaskPiece(index, part)
                        continue
                    edges = _Edges(keeps=self._planned.task.answer == "raw")
                    async for text in self._texts(prompt):
                        if kept := edges.push(text):
                            yield TaskPiece(index, kept)
                    prompt += 1
                cut = any(self._cut[first:prompt])
                yield TaskPiece(index, "", "length" if cut else "stop")
        finally:
            self.close()

    async def _texts(self, prompt: int) -> AsyncIterator[str]:
        """What one prompt's stream gives."""
        stream, shown = self._opened[0], 0
        async for token in stream:
            shown += len(token.text)
            yield token.text
        result = stream.result
        assert result is not None
        yield (result.text or "")[shown:]  # where it was cancelled, or out of time, between two tokens
        self._opened.popleft()
        self._count(prompt, result)
        self.usage.check_begun(own_limit=self._own_limit[prompt])
        await self.open()

    async def _decided(self, index: int) -> tuple[Call, float]:
        """A prompt's call, checked beside the event loop, within what is left of the request's time; and its start."""
        prompt, config = self._planned.prompts[index]
        seconds = self._service.seconds_until(self._end)
        changes: dict[str, Any] = {"max_time": min(config.max_time or seconds, seconds)}
        self._own_limit[index] = not self._waited and changes["max_time"] < seconds
        limit = self._service.settings.max_tokens_limit
        if limit is not None:
            changes["max_new_tokens"] = min(config.max_new_tokens or limit, limit)
        generator, started = self._model.generator, time.perf_counter()
        call = await self._service.prepare(
            lambda: generator._decide(prompt, config.updated(**changes), {}),
            compiles=not generator._has_compiled(config),
        )
        return call, started

    def _count(self, index: int, result: GenerationResult) -> None:
        self._cut[index] = result.finish_reasons[0] not in ("eos", "stop")
        generated = sum(map(len, result.generated))
        self.usage.generated += generated
        self._metrics.generated_tokens[self._model.name] += generated
        prompt, _ = self._planned.prompts[index]
        self.usage.count(result, len(prompt), self._metrics, self._model.name)

    def _reasons(self) -> list[str]:
        """Of each text whether a part of its answer was cut."""
        cut = iter(self._cut)
        reasons = []
        for parts in self._planned.layout():
            own = [next(cut) for part in parts if part is None]
            reasons.append("length" if any(own) else "stop")
        return reasons


class _Edges:
    """Takes outer white space off a text that comes in pieces.

    Args:
        keeps: it stays.
    """

    def __init__(self, *, keeps: bool) -> None:
        self._keeps, self._begun, self._held = keeps, False, ""

    def push(self, text: str) -> str:
        """The part that is certain by now."""
        if self._keeps:
            return text
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
        kept = text.rstrip()
        self._begun = self._begun or bool(kept)
        self._held = text[len(kept) :]
        return kept
