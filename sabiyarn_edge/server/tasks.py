"""/v1/tasks: what the models can be asked to do, and doing it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ..errors import InvalidInputError
from ..tasks.answers import Classification, Entity
from ..tasks.planned_task import PlannedTask
from ..tasks.runner import TaskRunner
from ..tasks.task import Task
from .access import record_of
from .body import check_texts, read_object, to_fields
from .completions import service_of, tokenizer_of
from .errors import HttpError, json_response
from .event_stream import EventStream, error_event, event, unless_gone
from .response_format import check_constraint
from .service import ServedModel, Service
from .task_run import TaskRun

__all__ = ["run_task", "tasks"]


MAX_CHARACTERS = 2**16
"""Of a request's texts: some twenty pages. What are thousands of sentences is work for minutes, and is cut for seconds
before it begins."""


class TaskFields(msgspec.Struct, kw_only=True):
    """The body of /v1/tasks/{name}, but for the task's slots."""

    model: str | None = None
    stream: bool | None = None
    source: str | None = None
    labels: list[str] | None = None
    options: dict[str, Any] | None = None
    special_tokens: bool = False


async def tasks(request: Request) -> Response:
    """The tasks of all models, or of the one that the query names."""
    service = service_of(request)
    asked = request.query_params.get("model")
    models = [service.models[name] for name in service.names] if asked is None else [service.model(asked)]
    data = [
        {"id": name, "object": "task", "model": model.name, **task.describe()}
        for model in models
        for name, task in model.generator.tasks.tasks.items()
    ]
    return json_response({"object": "list", "data": data})


async def run_task(request: Request) -> Response | ASGIApp:
    """Run a task."""
    content = await read_object(request)
    return await unless_gone(request.receive, _run(request, content))


async def _run(request: Request, content: dict[str, Any]) -> Response | ASGIApp:
    service, record = service_of(request), record_of(request.scope)
    model = service.model(_model_of(content))
    task = _task_of(model, request.path_params["name"])
    slots = {name: content.pop(name) for name in task.template.slots if name in content}
    fields = _fields(content, task)
    for name in task.template.slots:
        if slots.get(name) is None:
            raise HttpError(400, f"{name} is missing: give a text, or a list of texts.", param=name)
    _check_length(slots)
    if fields.stream and task.answer not in ("text", "raw"):
        raise HttpError(
            400, f"stream is true, but the task {task.name} gives no text. Leave it out.", param="stream"
        )
    limit = service.settings.max_tokens_limit
    _check_limit(fields.options or {}, limit)
    planned, is_batch = await _plan(service, model, task, slots, fields)
    record.update(model=model.name, task=task.name)
    if service.settings.log_prompts:
        decode = tokenizer_of(model).decode
        record["prompts"] = [decode(prompt, skip_special_tokens=False) for prompt, _ in planned.prompts]
    run = TaskRun(service, model, planned)
    head = {"object": "task.answer", "model": model.name, "task": task.name}

    def end() -> None:
        run.close()
        run.usage.note(record)

    if fields.stream:
        await run.open()
        return EventStream(_events(run, {**head, "object": "task.answer.chunk"}, record), end)
    try:
        answers, reasons = await run.answers()
    except ExceptionGroup as group:  # of prompts that ran side by side: each says the same
        raise group.exceptions[0] from None
    finally:
        end()
    shown = [_shown(answer) for answer in answers]
    return json_response(
        {
            **head,
            "answer": shown if is_batch else shown[0],
            "finish_reason": reasons if is_batch else reasons[0],
            "usage": run.usage.fields(),
        }
    )


def _model_of(content: Mapping[str, Any]) -> str | None:
    """The name is needed before the task's slots are known."""
    name = content.get("model")
    if name is not None and not isinstance(name, str):
        raise HttpError(400, f"model is {name!r:.60}; it must be a model's name.", param="model")
    return name


def _task_of(model: ServedModel, name: str) -> Task:
    if not model.generator.tasks.tasks:
        raise HttpError(
            404,
            f"the model {model.name} has no tasks: its folder has no tasks.json. /v1/completions takes a prompt.",
            param="task",
            code="task_not_found",
        )
    try:
        return model.generator.tasks.task(name)
    except InvalidInputError as error:
        raise HttpError(404, str(error), param="task", code="task_not_found") from None


def _fields(content: dict[str, Any], task: Task) -> TaskFields:
    """What is not a slot; None means that it is not given."""
    known = {field.name for field in msgspec.structs.fields(TaskFields)}
    for name in content:
        if name not in known:
            shown = ", ".join((*task.template.slots, *sorted(known)))
            raise HttpError(
                400, f"{name:.60} is no field of the task {task.name}; these are {shown}.", param=name
            )
    return to_fields({name: value for name, value in content.items() if value is not None}, TaskFields)


async def _plan(
    service: Service, model: ServedModel, task: Task, slots: Mapping[str, Any], fields: TaskFields
) -> tuple[PlannedTask, bool]:
    """Cut and encode the texts, beside the event loop."""

    def plan() -> tuple[PlannedTask, bool]:
        planned, is_batch = TaskRunner(model.generator, model.generator.tasks).plan(
            task.name,
            slots,
            source=fields.source,
            labels=fields.labels,
            options=fields.options,
            special_tokens=fields.special_tokens,
        )
        if fields.options:
            check_constraint(planned.call.config)
        return planned, is_batch

    try:
        return await service.prepare(plan)
    except InvalidInputError as error:
        message = str(error)
        word = message.partition(" ")[0].partition("[")[0]
        param = word if word in (*task.template.slots, "source", "labels") else HttpError.of(error).param
        raise HttpError(400, message, param=param) from None


def _check_length(slots: Mapping[str, Any]) -> None:
    for name, given in slots.items():
        texts = given if isinstance(given, list) else [given]
        check_texts(name, len(texts))
        length = sum(len(text) for text in texts if isinstance(text, str))
        if length > MAX_CHARACTERS:
            raise HttpError(
                400,
                f"{name} has {length} characters, but a request may have {MAX_CHARACTERS}. Send several requests.",
                param=name,
            )


def _check_limit(options: Mapping[str, Any], limit: int | None) -> None:
    """Refuse an answer that is asked to be longer than the server allows; a task's own length is cut instead."""
    for name in ("max_new_tokens", "min_new_tokens"):
        asked = options.get(name)
        if limit is not None and isinstance(asked, int) and asked > limit:
            raise HttpError(
                400,
                f"{name} is {asked}, but this server gives at most {limit} tokens. Ask for at most that many.",
                param=name,
            )


async def _events(run: TaskRun, head: dict[str, Any], record: dict[str, Any]) -> AsyncIterator[bytes]:
    """What a stream sends; an error after its beginning is an event too."""
    try:
        async with aclosing(run.pieces()) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                reason = piece.reason or None
                yield event({**head, "index": piece.index, "text": piece.text, "finish_reason": reason})
    except Exception as error:
        yield error_event(error, record)
        return
    yield event({**head, "usage": run.usage.fields()})
    yield b"data: [DONE]\n\n"


def _shown(answer: str | Classification | list[Entity]) -> Any:
    if isinstance(answer, str):
        return answer
    if isinstance(answer, Classification):
        return {"label": answer.label, "probabilities": answer.probabilities}
    return [vars(entity) for entity in answer]
