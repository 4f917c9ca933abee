"""The records of a batch job: what stands in the output for each line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..calls.result import GenerationResult
from ..errors import InvalidInputError, SabiYarnError
from ..tasks.answers import Classification, Entity
from ..tasks.task_call import was_cut
from .lines import Id

__all__ = ["answer_fields", "encoded", "error_fields", "generation_fields", "task_fields"]


_encode = json.JSONEncoder(ensure_ascii=False).encode
"""json.dumps() makes an encoder of its own for each call with options."""


def encoded(fields: Mapping[str, Any]) -> bytes:
    """One line of JSON."""
    try:
        return _encode(fields).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON may escape, came back in a message
        return json.dumps(fields).encode() + b"\n"


def error_fields(id: Id | None, line: int, error: SabiYarnError) -> dict[str, Any]:
    """The record of a line that gave an error; its number stands for an id that could not be read."""
    name = {"line": line} if id is None else {"id": id}
    kind = (
        InvalidInputError if isinstance(error, InvalidInputError) else type(error)
    )  # not one of its subclasses
    return {**name, "error": {"type": kind.__name__, "message": str(error)}}


def generation_fields(result: GenerationResult, *, with_ids: bool) -> dict[str, Any]:
    """What a prompt gave; with several returned sequences, lists of it."""
    generated = result.generated
    fields: dict[str, Any] = {}
    if result.texts is not None:
        fields["text"] = result.texts
    fields["finish_reason"] = result.finish_reasons
    if with_ids or result.texts is None:
        fields["ids"] = generated
    if result.sequences_scores is not None:
        fields["score"] = [float(score) for score in result.sequences_scores]
    if result.scores is not None:
        fields["log_probs"] = [row.tolist() for row in result.scores]
    if result.seeds is not None:
        fields["seed"] = result.seeds
    if len(generated) == 1:
        fields = {name: value[0] for name, value in fields.items()}
    elif "text" in fields:
        fields["texts"] = fields.pop("text")
    return {**fields, "tokens": {"prompt": result.prompt_lengths[0], "generated": sum(map(len, generated))}}


def task_fields(
    answer: str | list[Entity], results: Sequence[GenerationResult], *, with_ids: bool
) -> dict[str, Any]:
    """What a task gave; ids are those of each unit of the text.

    The finish reason is that of the first unit whose answer was cut, or else the last one's.
    """
    reasons = [result.finish_reasons[0] for result in results]
    fields = answer_fields(answer)
    if reasons:
        fields["finish_reason"] = next(filter(was_cut, reasons), reasons[-1])
    if with_ids:
        fields["ids"] = [result.generated[0] for result in results]
    prompt = sum(result.prompt_lengths[0] for result in results)
    generated = sum(len(result.generated[0]) for result in results)
    return {**fields, "tokens": {"prompt": prompt, "generated": generated}}


def answer_fields(answer: str | Classification | list[Entity]) -> dict[str, Any]:
    """A task's answer, ready for JSON."""
    if isinstance(answer, str):
        return {"text": answer}
    if isinstance(answer, Classification):
        return {"label": answer.label, "probabilities": answer.probabilities}
    return {"entities": [vars(entity) for entity in answer]}
