"""evaluate_models: several models on one task with references, in one report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..options.checks import integer
from .quality import Metric, label_metrics, perplexity_metric, text_metrics
from .trial import Trial, TrialRequest, run_trial

__all__ = ["DEFAULT_SAMPLES", "evaluate_models"]

DEFAULT_SAMPLES = 1000
"""Resampled test sets."""
MIB = 2**20


def evaluate_models(
    models: Sequence[str | Path],
    sources: Sequence[str],
    references: Sequence[str],
    *,
    task: str | None = None,
    slots: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    samples: int = DEFAULT_SAMPLES,
    threads: int | None = None,
    rows: int = 32,
    told: Callable[[str], object] = lambda model: None,
) -> dict[str, Any]:
    """Measure models on a test set. Each runs in a process of its own, one after the other.

    Args:
        models: model folders, or names of bundled models; differences are told from the first.
        sources: texts.
        references: what each should become: a text, or for a task with labels one of these (white space around it is
            dropped).
        task, slots, labels, options: as `run_batch` takes them.
        samples: resampled test sets, for the intervals.
        threads: of each model; None: all CPUs at hand.
        rows: texts at once.
        told: called with each model's name before it runs.

    Returns:
        A report, ready for JSON: "metrics" with their signatures, and an entry for each model. That has the metrics'
        values with intervals of 95 % and p-values of the difference from the first model (None where nothing was
        measured). It also has the model's speed, memory and answers, and the number of references that were too long
        for the perplexity.

    Raises:
        InvalidInputError: an argument is not allowed, or a package is missing.
        SabiYarnError: a model cannot be loaded, or its process failed.
    """
    samples = integer(at_least=2)("samples", samples)
    if not sources or len(sources) != len(references):
        raise InvalidInputError(
            f"there are {len(sources)} sources and {len(references)} references. Give as many, and at least one."
        )
    trials: dict[str, Trial] = {}
    for name, model in _names(models).items():
        told(name)
        trials[name] = run_trial(
            TrialRequest(
                model=str(model),
                task=task,
                slots=dict(slots or {}),
                labels=None if labels is None else list(labels),
                options=dict(options or {}),
                sources=list(sources),
                references=list(references),
                threads=threads,
                rows=rows,
            )
        )
    metrics = _metrics(trials, references, samples)
    return {
        "task": task,
        "texts": len(sources),
        "samples": samples,
        "metrics": {metric.name: metric.signature for metric in metrics},
        "models": {name: _model(name, trial, metrics, len(sources)) for name, trial in trials.items()},
    }


def _names(models: Sequence[str | Path]) -> dict[str, str | Path]:
    """A name for each model: its folder's, or its path where two folders have the same name."""
    if not models:
        raise InvalidInputError("there is no model. Give at least one.")
    short = [Path(model).name for model in models]
    found = {
        name if short.count(name) == 1 else str(model): model
        for name, model in zip(short, models, strict=True)
    }
    if len(found) < len(models):
        raise InvalidInputError("a model is given twice. Give each once.")
    return found


def _metrics(trials: Mapping[str, Trial], references: Sequence[str], samples: int) -> list[Metric]:
    answers = {name: trial.answers for name, trial in trials.items()}
    if next(iter(trials.values())).are_labels:
        return label_metrics(answers, [label.strip() for label in references], samples)
    scores = {name: np.array(trial.reference_scores) for name, trial in trials.items()}
    return [*text_metrics(answers, references, samples), perplexity_metric(scores, samples)]


def _model(name: str, trial: Trial, metrics: Sequence[Metric], texts: int) -> dict[str, Any]:
    return {
        "metrics": {metric.name: asdict(metric.estimates[name]) for metric in metrics},
        "errors": trial.errors,
        "references_left_out": sum(not tokens for _, tokens in trial.reference_scores),
        "lines_per_second": texts / trial.seconds,
        "tokens_per_second": trial.generated_tokens / trial.seconds,
        "seconds": trial.seconds,
        "weights_mib": trial.weights_bytes / MIB,
        "private_mib": trial.private_bytes / MIB,
        "answers": trial.answers,
    }
