"""How good answers are: chrF++, BLEU and exact match of texts, accuracy and F1 of labels, perplexity of references."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..system.installation import install_command
from .bootstrap import Estimate, estimates

__all__ = ["Metric", "label_metrics", "perplexity_metric", "text_metrics"]


class Metric:
    """A metric of all models.

    Attributes:
        name: for people.
        signature: how it was computed, as sacrebleu says it; "" where the name says all.
        estimates: of each model.
    """

    def __init__(self, name: str, signature: str, estimates: Mapping[str, Estimate]) -> None:
        self.name, self.signature, self.estimates = name, signature, estimates


def text_metrics(
    answers: Mapping[str, Sequence[str]], references: Sequence[str], samples: int
) -> list[Metric]:
    """chrF++, BLEU and exact match, in percent.

    Args:
        answers: of each model, one for each reference.

    Raises:
        InvalidInputError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ModuleNotFoundError:
        raise InvalidInputError(f"chrF++ and BLEU need sacrebleu: {install_command('evaluate')}") from None
    found = [
        _sacrebleu_metric("chrF++", CHRF(word_order=2), answers, references, samples),
        _sacrebleu_metric("BLEU", BLEU(), answers, references, samples),
    ]
    equal = {
        name: np.array(
            [[_normal(one) == _normal(other), 1] for one, other in zip(given, references, strict=True)], float
        )
        for name, given in answers.items()
    }
    return [*found, Metric("exact match", "", estimates(equal, _percentage, samples))]


def label_metrics(
    answers: Mapping[str, Sequence[str]], references: Sequence[str], samples: int
) -> list[Metric]:
    """Accuracy, and the mean of the labels' F1, in percent."""
    labels = sorted({*references, *(label for given in answers.values() for label in given)})
    right = {
        name: np.array([[one == other, 1] for one, other in zip(given, references, strict=True)], float)
        for name, given in answers.items()
    }
    counts = {name: _label_counts(given, references, labels) for name, given in answers.items()}
    return [
        Metric("accuracy", "", estimates(right, _percentage, samples)),
        Metric("macro F1", "", estimates(counts, _macro_f1, samples)),
    ]


def perplexity_metric(scores: Mapping[str, NDArray[np.float64]], samples: int) -> Metric:
    """Perplexity of the references.

    Args:
        scores: of each model [texts, 2]: log-probability of a reference after its prompt, and its tokens (0: left
            out).
    """
    return Metric("reference perplexity", "", estimates(scores, _perplexity, samples))


def _sacrebleu_metric(
    name: str, metric: Any, answers: Mapping[str, Sequence[str]], references: Sequence[str], samples: int
) -> Metric:
    """One of sacrebleu's metrics, which is a function of sums over the texts, too."""
    statistics = {
        model: np.array(metric._extract_corpus_statistics(list(given), [list(references)]), float)
        for model, given in answers.items()
    }

    def values(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = sums.reshape(-1, sums.shape[-1])
        scores = [metric._compute_score_from_stats([int(number) for number in row]).score for row in rows]
        return np.array(scores).reshape(sums.shape[:-1])

    found = estimates(statistics, values, samples)
    return Metric(name, str(metric.get_signature()), found)


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _percentage(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(100 * sums[..., 0] / sums[..., 1])


def _perplexity(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    total, tokens = sums[..., 0], sums[..., 1]
    return np.where(tokens > 0, np.exp(-total / np.maximum(tokens, 1)), np.nan)


def _label_counts(
    given: Sequence[str], references: Sequence[str], labels: Sequence[str]
) -> NDArray[np.float64]:
    """Of each text [3 * labels]: whether it is a true positive of a label, was given it, and has it."""
    answered = np.array([[label == one for label in labels] for one in given], float)
    expected = np.array([[label == one for label in labels] for one in references], float)
    return np.concatenate([answered * expected, answered, expected], axis=1)


def _macro_f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    right, answered, expected = np.split(sums, 3, axis=-1)
    present = answered + expected > 0
    f1 = np.where(present, 2 * right / np.maximum(answered + expected, 1), 0.0)
    return np.asarray(100 * f1.sum(axis=-1) / np.maximum(present.sum(axis=-1), 1))
