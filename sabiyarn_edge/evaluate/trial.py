"""Runs one model over a test set, in a process of its own, so that its speed and memory are its own.

python -m sabiyarn_edge.evaluate.trial < request.json > answers.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import errors
from ..errors import InvalidInputError, JobError, SabiYarnError, shown
from ..system.interrupts import run_program

__all__ = ["Trial", "TrialRequest", "main", "run_trial"]


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """A model, its task and the texts to try it on."""

    model: str
    task: str | None
    slots: dict[str, str]
    labels: list[str] | None
    options: dict[str, Any]
    sources: list[str]
    references: list[str]
    threads: int | None
    rows: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A model's answers, and what they cost."""

    answers: list[str]
    """A text or a label for each source; "" where there was an error."""
    errors: int
    are_labels: bool
    reference_scores: list[list[float]]
    """For each source, the log-probability of the reference's tokens behind the prompt, and how many there are (0 if
    the reference is too long)."""
    generated_tokens: int
    seconds: float
    """That answering took, without loading."""
    weights_bytes: int
    private_bytes: int
    """Private memory of the process afterwards; 0 where the system does not tell."""


_CHILD = f"""\
import sys
from {run_program.__module__} import run_program
def run():
    from {__name__} import main
    main()
sys.exit(run_program(run))
"""


def run_trial(request: TrialRequest) -> Trial:
    """Ask in a fresh process.

    Raises:
        SabiYarnError: what the process refused.
        JobError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps(asdict(request)),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise JobError(f"the process that ran {request.model} ended with {done.returncode}.") from None
    if "refused" in answer:
        kind = getattr(errors, answer["kind"], InvalidInputError)  # its subclasses are not told apart
        raise kind(f"{request.model}: {answer['refused']}")
    return Trial(**answer)


def _run(request: TrialRequest) -> Trial:
    from ..generator import EdgeGenerator
    from ..jobs import run_batch
    from ..system.process_memory import process_memory

    generator = EdgeGenerator.from_pretrained(request.model, num_threads=request.threads)
    if generator.tokenizer is None:
        raise InvalidInputError("it has no tokenizer. Put the model's tokenizer.json into it.")
    are_labels = _check(generator, request)
    main = "prompt" if request.task is None else _main_slot(generator, request)
    lines = [{"id": index, main: text} for index, text in enumerate(request.sources)]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "records.jsonl"
        started = time.perf_counter()
        summary = run_batch(
            generator,
            lines,
            output,
            task=request.task,
            slots=request.slots,
            labels=request.labels,
            options=request.options,
            rows=request.rows,
        )
        seconds = time.perf_counter() - started
        records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    memory = process_memory()
    return Trial(
        answers=[record.get("label", record.get("text", "")) for record in records],
        errors=summary.errors,
        are_labels=are_labels,
        reference_scores=[] if are_labels else _reference_scores(generator, request, main),
        generated_tokens=summary.generated_tokens,
        seconds=seconds,
        weights_bytes=generator.config.weights_bytes,
        private_bytes=memory.get("process_anonymous", 0),
    )


def _check(generator: Any, request: TrialRequest) -> bool:
    """Refuse what would count as wrong whatever a model answers. Returns: whether answers are labels."""
    returned = generator.generation_config.updated(**request.options).num_return_sequences
    if returned > 1:
        raise InvalidInputError(
            f"num_return_sequences is {returned}, but one answer is compared with each reference. Leave it out."
        )
    if request.task is None:
        return False
    task = generator.tasks.task(request.task)
    if task.answer == "tags":
        raise InvalidInputError(
            f"the task {task.name} gives entities, but only texts and labels are compared. Give another task."
        )
    if task.answer != "label":
        return False
    if labels := task.labels or request.labels:
        for number, label in enumerate(request.references, start=1):
            if label.strip() not in labels:
                raise InvalidInputError(
                    f"line {number} of the references is {shown(label)}, which is no label of the task {task.name}; "
                    f"they are {', '.join(labels)}."
                )
    return True


def _main_slot(generator: Any, request: TrialRequest) -> str:
    task = generator.tasks.task(request.task)
    slots: list[str] = [slot for slot in task.text_slots if slot not in request.slots]
    if not slots:
        raise InvalidInputError(
            "all slots of the task are given, so that no line could differ. Leave one out."
        )
    return slots[0]


def _reference_scores(generator: Any, request: TrialRequest, main: str) -> list[list[float]]:
    """How likely each reference is behind its prompt, with the end token behind it."""
    prompts, continuations = [], []
    end = generator.generation_config.eos_token_ids[:1]
    for source, reference in zip(request.sources, request.references, strict=True):
        prompts.append(_prompt(generator, request, {**request.slots, main: source}))
        text = f" {reference}"  # as labels stand behind a prompt
        continuations.append([*generator.tokenizer.encode(text, add_special_tokens=False), *end])
    fits = [
        len(prompt) + len(after) <= generator.max_length
        for prompt, after in zip(prompts, continuations, strict=True)
    ]
    scores = generator.score(_kept(continuations, fits), _kept(prompts, fits))
    found = []
    for fit in fits:
        if not fit:
            found.append([0.0, 0.0])
            continue
        score = next(scores)
        found.append([score.total, float(len(score.log_probs))])
    return found


def _prompt(generator: Any, request: TrialRequest, slots: dict[str, str]) -> list[int]:
    if request.task is None:
        found: list[int] = generator.tokenizer.encode(slots["prompt"])
        return found
    from ..tasks.runner import TaskRunner

    call = TaskRunner(generator, generator.tasks).open(request.task, options=request.options)
    return call.whole_prompt(call.row(slots))


def _kept(items: Sequence[list[int]], fits: Sequence[bool]) -> list[list[int]]:
    return [item for item, fit in zip(items, fits, strict=True) if fit]


def main() -> None:
    """Answer a request from standard input, in the fresh process."""
    request = TrialRequest(**json.load(sys.stdin))
    try:
        answer = asdict(_run(request))
    except SabiYarnError as error:
        answer = {"refused": str(error), "kind": type(error).__name__}
    json.dump(answer, sys.stdout)
