"""/v1/completions and /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ..chat.prompt import ChatPrompt
from ..errors import InvalidInputError
from ..options.generation_config import GenerationConfig
from ..text.tokenizer import Tokenizer
from .access import record_of
from .answers import Answer, ChatAnswer, CompletionAnswer, Echo
from .body import check_texts, read_object
from .errors import json_response
from .event_stream import EventStream, error_event, event, unless_gone
from .generating import Generating
from .generation_fields import (
    ChatFields,
    CompletionFields,
    Generate,
    decide_config,
    decide_lengths,
    named_as_sent,
    read_generation,
)
from .logprobs import TokenLogprobs, prompt_logprobs
from .response_format import check_constraint
from .service import ServedModel, Service

__all__ = ["chat_completions", "completions", "encoded", "service_of", "texts_or_ids", "tokenizer_of"]


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


def tokenizer_of(model: ServedModel) -> Tokenizer:
    """A model's tokenizer, without which none is served."""
    assert model.generator.tokenizer is not None
    return model.generator.tokenizer


async def completions(request: Request) -> Response | ASGIApp:
    """Continue prompts."""
    content = await read_object(request)
    with named_as_sent(content):
        generate = read_generation(content, CompletionFields)
        return await unless_gone(request.receive, _complete(request, generate))


async def _complete(request: Request, generate: Generate) -> Response | ASGIApp:
    fields = generate.fields
    assert isinstance(fields, CompletionFields)
    service = service_of(request)
    model = service.model(fields.model)
    tokenizer = tokenizer_of(model)
    given = texts_or_ids("prompt", fields.prompt)

    def prepare() -> tuple[Generating, list[str]]:
        generating = _generating(service, model, generate, encoded(given, tokenizer), fields.logprobs)
        echoed = given if fields.echo else []
        return generating, [item if isinstance(item, str) else tokenizer.decode(item) for item in echoed]

    generating, texts = await service.prepare(prepare)
    async with _begun(request, model, generating):
        echoes, prompts = [Echo()] * generating.num_choices, generating.prompts
        returns = generating.config.num_return_sequences
        if fields.echo:
            logprobs: list[list[TokenLogprobs]] = [[] for _ in prompts]
            if fields.logprobs is not None:
                overflow = model.generator.overflow.take_from(dict(generate.call_options))
                scoring = model.generator._ascore(prompts, fields.logprobs, overflow)
                scored = await service.whole(scoring, generating.end)
                logprobs = [prompt_logprobs(one) for one in scored]
            both = zip(texts, logprobs, strict=True)
            echoes = [echo for echo in (Echo(*each) for each in both) for _ in range(returns)]
        own = [prompt for prompt in prompts for _ in range(returns)]
        return await _answer(
            request, generate, generating, CompletionAnswer(model.name, tokenizer, echoes, own)
        )


async def chat_completions(request: Request) -> Response | ASGIApp:
    """Answer messages, by the model's chat template."""
    content = await read_object(request)
    with named_as_sent(content):
        generate = read_generation(content, ChatFields)
        return await unless_gone(request.receive, _chat(request, generate))


async def _chat(request: Request, generate: Generate) -> Response | ASGIApp:
    fields = generate.fields
    assert isinstance(fields, ChatFields)
    service = service_of(request)
    model = service.model(fields.model)
    if fields.top_logprobs is not None and not fields.logprobs:
        raise InvalidInputError(f"top_logprobs is {fields.top_logprobs} but logprobs is not true. Set it.")

    def prepare() -> tuple[Generating, ChatPrompt]:
        generator = model.generator
        asked, max_length = decide_lengths(generate, generator.generation_config)
        prompt = generator.chat_model.prompt(
            fields.messages,
            tools=fields.tools,
            tool_choice=fields.tool_choice,
            new_tokens=asked,
            max_length=max_length,
            cuts=generate.call_options.get("overflow", generator.overflow.mode) == "error",
        )
        num_top = (fields.top_logprobs or 0) if fields.logprobs else None
        return _generating(service, model, generate, [prompt.ids], num_top, prompt.constrained), prompt

    # The schemas of tools may hold patterns, which are compiled.
    generating, prompt = await service.prepare(prepare, compiles=bool(fields.tools))
    async with _begun(request, model, generating):
        answer = ChatAnswer(model.name, prompt, generating.config)
        return await _answer(request, generate, generating, answer)


def texts_or_ids(name: str, value: Any) -> list[str | list[int]]:
    """A field that is a text, or token ids, or a list of either, as a list.

    Raises:
        InvalidInputError: it is something else, or there is nothing in it.
        HttpError: there are too many.
    """
    items = value if isinstance(value, list) and value and not isinstance(value[0], int) else [value]
    check_texts(name, len(items))
    if not all(
        item and (isinstance(item, str) or (isinstance(item, list) and all(type(t) is int for t in item)))
        for item in items
    ):
        raise InvalidInputError(
            f"{name} must be a text, a list of token ids, or a list of texts or of such lists, and not be empty."
        )
    return items


def encoded(given: Sequence[str | list[int]], tokenizer: Tokenizer) -> list[list[int]]:
    """Texts, or ids, as ids."""
    return [tokenizer.encode(item) if isinstance(item, str) else item for item in given]


def _generating(
    service: Service,
    model: ServedModel,
    generate: Generate,
    prompts: Sequence[list[int]],
    num_top: int | None,
    constrained: Callable[[GenerationConfig], GenerationConfig] = lambda config: config,
) -> Generating:
    generator, fields, settings = model.generator, generate.fields, service.settings
    if fields.stream_options is not None and not fields.stream:
        raise InvalidInputError(
            "stream_options is given but stream is not true. Leave it out, or set stream."
        )
    config = decide_config(
        generate,
        generator.generation_config,
        longest_prompt=max(map(len, prompts)),
        max_length=generator.max_length,
        timeout=settings.timeout,
        max_tokens_limit=settings.max_tokens_limit,
    )
    check_constraint(config)
    constrained_config = constrained(config)
    check_constraint(constrained_config, "tools")
    return Generating(
        service,
        model,
        prompts,
        constrained_config,
        generate.call_options,
        num_top=num_top,
        streams=bool(fields.stream),
    )


@asynccontextmanager
async def _begun(request: Request, model: ServedModel, generating: Generating) -> AsyncIterator[None]:
    """Begin a request, and close it if an error ends it before its answer."""
    record = record_of(request.scope)
    record["model"] = model.name
    if service_of(request).settings.log_prompts:
        decode = tokenizer_of(model).decode
        record["prompts"] = [decode(ids, skip_special_tokens=False) for ids in generating.prompts]
    try:
        await generating.begin()
        yield
    except BaseException:
        generating.close()
        raise


async def _answer(
    request: Request, generate: Generate, generating: Generating, answer: Answer
) -> Response | ASGIApp:
    if not generate.fields.stream:
        try:
            choices = await generating.choices()
        finally:
            generating.close()
            _note(request, generating)
        return json_response({**answer.whole(choices), "usage": generating.usage.fields()})
    generating.open()

    def end() -> None:
        generating.close()
        _note(request, generating)

    options = generate.fields.stream_options
    with_usage = options is not None and bool(options.include_usage)
    return EventStream(_events(request, generating, answer, with_usage=with_usage), end)


async def _events(
    request: Request, generating: Generating, answer: Answer, *, with_usage: bool
) -> AsyncIterator[bytes]:
    """What a stream sends. An error after its beginning is an event too: the status was sent."""
    beside = {"usage": None} if with_usage else {}
    opened = set()
    try:
        async for piece in generating.pieces():
            if piece.index not in opened:
                opened.add(piece.index)
                opening = answer.opening(piece.index)
                if opening is not None:
                    yield event({**opening, **beside})
            chunk = answer.chunk(piece)
            if chunk is not None:
                yield event({**chunk, **beside})
    except Exception as error:
        yield error_event(error, record_of(request.scope))
        return
    if with_usage:
        yield event({**answer.last(), "usage": generating.usage.fields()})
    yield b"data: [DONE]\n\n"


def _note(request: Request, generating: Generating) -> None:
    """Put what a request took into its line of the log."""
    generating.usage.note(record_of(request.scope))
