"""What the endpoints that generate take: OpenAI's fields, and the options of GenerationConfig under their own names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ..calls.decode_options import DEFAULT_MAX_NEW_TOKENS
from ..errors import InvalidInputError, shown
from ..options.generation_config import GenerationConfig, OptionWarning
from .body import to_fields
from .errors import HttpError
from .response_format import OTHER_CONSTRAINT_NAMES, ResponseFormat, add_response_format

__all__ = [
    "ChatFields",
    "CompletionFields",
    "GenerationFields",
    "StreamOptions",
    "decide_config",
    "decide_lengths",
    "named_as_sent",
    "read_generation",
]

MAX_CHOICES = 64
MAX_TOP_LOGPROBS = 20
_MAX_DIGITS = 10
"""Of a token id; the core keeps ids in 32 bits."""

Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
TopLogprobs = Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)]
NewTokens = Annotated[int, Meta(ge=1)]
Temperature = Annotated[float, Meta(ge=0)]
Bias = Annotated[float, Meta(ge=-100, le=100)]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """OpenAI's stream_options."""

    include_usage: bool | None = None


class GenerationFields(Struct, kw_only=True):
    """Fields that both endpoints have. None: not given."""

    model: str | None = None
    n: Choices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: NewTokens | None = None
    stop: str | list[str] | None = None
    temperature: Temperature | None = None
    logit_bias: dict[str, Bias] | None = None
    response_format: ResponseFormat | None = None


class CompletionFields(GenerationFields, kw_only=True):
    """The body of /v1/completions."""

    prompt: Any
    """A text, ids, or a list of either."""
    echo: bool | None = None
    logprobs: TopLogprobs | None = None


class ChatFields(GenerationFields, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: Any
    """As EdgeGenerator.chat takes them, which checks them; tools and tool_choice too."""
    tools: Any = None
    tool_choice: Any = None
    max_completion_tokens: NewTokens | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None


_CHANGES_NOTHING: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "function_call": ("none",),
    "functions": ([],),
    "ignore_eos": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
}
"""Fields of OpenAI and vLLM that are not supported -> their values that ask for nothing. Clients send these unasked."""
_LABELS = ("user", "safety_identifier", "prompt_cache_key")
"""OpenAI's fields that name the caller, for services that bill or watch him."""
_OTHER_NAMES = {"max_new_tokens": "max_tokens", "num_return_sequences": "n", "stop_strings": "stop"}
"""Options of GenerationConfig -> what OpenAI's API calls them. Either may be given."""
_SENT_NAMES = (
    *_OTHER_NAMES.items(),
    ("max_new_tokens", "max_completion_tokens"),
    ("sequence_bias", "logit_bias"),
    ("prompt", "input"),
    ("json_schema", "guided_json"),
    ("json_schema", "response_format"),
    ("regex", "guided_regex"),
    ("choices", "guided_choice"),
    ("grammar", "guided_grammar"),
)
"""What errors of the library say -> what they are to say, if the client sent that field and not the other."""
_OF_ONE_ENDPOINT = (
    *("prompt", "echo"),
    *("messages", "top_logprobs", "max_completion_tokens", "tools", "tool_choice"),
)
_CALL_OPTIONS = ("overflow", "keep_tokens", "reuse_prefix")
"""Options of a call that no GenerationConfig holds."""


@dataclass(frozen=True)
class Generate:
    """A checked request of one of the endpoints."""

    fields: CompletionFields | ChatFields
    options: dict[str, Any]
    """The fields that are options of GenerationConfig, not checked yet."""
    call_options: dict[str, Any]
    """As _CALL_OPTIONS."""


def read_generation(content: dict[str, Any], kind: type[CompletionFields] | type[ChatFields]) -> Generate:
    """Sort a body's fields.

    Raises:
        HttpError: one is not supported or of the wrong type; it is named.
    """
    own = {field.name for field in msgspec.structs.fields(kind)}
    fields, options, call_options = {}, {}, {}
    for name, value in content.items():
        if name in own:
            fields[name] = value
        elif name in _LABELS or value is None:
            continue
        elif name in _CHANGES_NOTHING:
            if value not in _CHANGES_NOTHING[name]:
                raise HttpError(400, f"{name} is not supported. Leave it out.", param=name)
        elif name in _OTHER_NAMES and content.get(_OTHER_NAMES[name]) is not None:
            other = _OTHER_NAMES[name]
            raise HttpError(
                400, f"{name} and {other} are given, which mean the same. Leave one out.", param=name
            )
        elif name in OTHER_CONSTRAINT_NAMES:
            option = OTHER_CONSTRAINT_NAMES[name]
            if content.get(option) is not None:
                raise HttpError(
                    400, f"{name} and {option} are given, which mean the same. Leave one out.", param=name
                )
            options[option] = value
        elif name in _CALL_OPTIONS:
            call_options[name] = value
        elif name in _OF_ONE_ENDPOINT or name == "output_scores":
            raise HttpError(400, f"{name} is not supported here. Leave it out.", param=name)
        else:
            options[name] = value
    return Generate(to_fields(fields, kind), options, call_options)


@contextmanager
def named_as_sent(content: Mapping[str, Any], param: str | None = None) -> Iterator[None]:
    """Have errors speak of the fields that a client sent, where the library calls them otherwise.

    Args:
        content: the request's fields.
        param: the field that is wrong where an error names none.

    Raises:
        HttpError: in place of an InvalidInputError. Its `param` is the first field of the request that it names.
    """
    try:
        yield
    except InvalidInputError as error:
        message = str(error)
        for said, sent in _SENT_NAMES:
            if said not in content and sent in content:
                message = re.sub(rf"\b{said}\b", sent, message)
        if "do_sample" not in content:
            message = message.replace("do_sample is False", "temperature is 0 or not given")
            message = message.replace("do_sample=True", "a temperature above 0")
        named = next((word for word in re.findall(r"\w+", message) if word in content), param)
        raise HttpError(400, message, param=named or HttpError.of(error).param) from None


def decide_config(
    request: Generate,
    defaults: GenerationConfig,
    *,
    longest_prompt: int,
    max_length: int,
    timeout: float,
    max_tokens_limit: int | None,
) -> GenerationConfig:
    """The options of a request.

    Args:
        defaults: the model's, for what the request leaves open. temperature says whether tokens are drawn (above 0)
            or the best one is taken (0); so do the other options of drawing, where there is no temperature.
        longest_prompt: tokens.
        max_length: the model's positions.
        timeout: seconds that the request may take.
        max_tokens_limit: most new tokens that it may ask for.

    Raises:
        InvalidInputError: an option is unknown, of the wrong type, out of range or contradicts another.
    """
    fields, options = request.fields, dict(request.options)
    if fields.temperature is not None:
        if options.setdefault("do_sample", fields.temperature > 0) and not fields.temperature:
            raise InvalidInputError(
                "temperature is 0, which takes the best token, but do_sample is true. Leave one out."
            )
        if fields.temperature > 0:
            options["temperature"] = fields.temperature
    elif any(options.get(name) is not None for name in _DRAWING):
        options.setdefault("do_sample", True)
    if fields.n is not None:
        options["num_return_sequences"] = fields.n
    if fields.stop is not None:
        options["stop_strings"] = fields.stop or None
    if fields.logit_bias:
        options["sequence_bias"] = _with_bias(options.get("sequence_bias"), fields.logit_bias)
    add_response_format(options, fields.response_format)
    asked = _new_tokens(fields)
    if asked is not None:
        options["max_new_tokens"] = asked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptionWarning)  # clients send options that change nothing
        config = defaults.updated(**options)
        limits: dict[str, Any] = {"max_time": min(config.max_time or timeout, timeout)}
        if max_tokens_limit is not None:
            limits["max_new_tokens"] = _limited(config, longest_prompt, max_length, max_tokens_limit)
        return config.updated(**limits)


_DRAWING = ("top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def decide_lengths(request: Generate, defaults: GenerationConfig) -> tuple[int | None, int | None]:
    """max_new_tokens and max_length of a request.

    Raises: as `decide_config`.
    """
    options = {
        name: request.options[name] for name in ("max_new_tokens", "max_length") if name in request.options
    }
    asked = _new_tokens(request.fields)
    if asked is not None:
        options["max_new_tokens"] = asked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptionWarning)
        config = defaults.updated(**options)
    return config.max_new_tokens, config.max_length


def _new_tokens(fields: CompletionFields | ChatFields) -> int | None:
    newer = fields.max_completion_tokens if isinstance(fields, ChatFields) else None
    if newer is not None and fields.max_tokens not in (None, newer):
        raise InvalidInputError(
            f"max_tokens is {fields.max_tokens} and max_completion_tokens is {newer}, which mean the same. Give one."
        )
    return fields.max_tokens if newer is None else newer


def _limited(config: GenerationConfig, prompt: int, max_length: int, limit: int) -> int:
    """Most new tokens, where the server has a limit."""
    asked = config.max_new_tokens
    if asked is None and config.max_length is not None:
        asked = max(config.max_length - prompt, 1)
    asked = max(asked or 0, config.min_new_tokens or 0)
    if asked > limit:
        raise InvalidInputError(
            f"max_new_tokens is {asked}, but this server gives at most {limit} tokens. Ask for at most that many."
        )
    return asked or min(limit, DEFAULT_MAX_NEW_TOKENS, max(max_length - prompt, 1))


def _with_bias(given: Any, bias: Mapping[str, float]) -> list[Any]:
    """sequence_bias with what logit_bias asks for."""
    found = list(given.items() if isinstance(given, Mapping) else given or [])
    for token, value in bias.items():
        if not (token.isascii() and token.isdigit() and len(token) <= _MAX_DIGITS):
            raise InvalidInputError(
                f'logit_bias has the key {shown(token)}; its keys are token ids, as texts: "42".'
            )
        found.append([[int(token)], value])
    return found
