"""Metrics beside sacrebleu's own scores, and beside plain loops."""

from __future__ import annotations

import random

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from sabiyarn_edge.evaluate.quality import label_metrics, text_metrics

WORDS = ["gbogbo", "ènìyàn", "ni", "a", "bí", "ní", "òmìnira", "iyì", "àti", "ẹ̀tọ́"]


def sentences(seed: int, wrong: float) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    references = [" ".join(draw.choices(WORDS, k=draw.randrange(3, 12))) for _ in range(60)]
    answers = [
        " ".join(draw.choice(WORDS) if draw.random() < wrong else word for word in line.split())
        for line in references
    ]
    return answers, references


def test_chrf_and_bleu_are_sacrebleus() -> None:
    good, references = sentences(1, 0.1)
    bad, _ = sentences(1, 0.6)
    chrf, bleu, exact = text_metrics({"good": good, "bad": bad}, references, 300)
    for metric, oracle in ((chrf, CHRF(word_order=2)), (bleu, BLEU())):
        for name, answers in (("good", good), ("bad", bad)):
            assert metric.estimates[name].value == oracle.corpus_score(answers, [references]).score
        assert metric.signature == str(oracle.get_signature())
        _, scores = PairedTest(
            [("good", good), ("bad", bad)], {"metric": oracle}, [references], test_type="bs", n_samples=300
        )()
        found = list(scores.values())[-1]
        assert metric.estimates["bad"].p_value < 0.05
        assert found[1].p_value < 0.05
        # Half of their interval, which is as wide as ours but for the draws.
        half = (metric.estimates["bad"].high - metric.estimates["bad"].low) / 2
        assert half == pytest.approx(found[1].ci, rel=0.25)
    assert exact.estimates["good"].value == 100 * sum(map(str.__eq__, good, references)) / 60


def test_texts_that_differ_in_blanks_and_composition_are_equal() -> None:
    *_, exact = text_metrics({"m": ["e\u0301  a "]}, ["é a"], 10)
    assert exact.estimates["m"].value == 100


def test_accuracy_and_f1() -> None:
    draw = random.Random(2)
    references = draw.choices("abc", k=80)
    answers = [draw.choice("abcd") if draw.random() < 0.4 else label for label in references]
    accuracy, f1 = label_metrics({"m": answers}, references, 50)
    assert accuracy.estimates["m"].value == pytest.approx(
        100 * sum(one == other for one, other in zip(answers, references, strict=True)) / 80
    )
    each = []
    for label in "abcd":
        right = sum(one == other == label for one, other in zip(answers, references, strict=True))
        precision = right / max(answers.count(label), 1)
        recall = right / max(references.count(label), 1)
        each.append(2 * precision * recall / (precision + recall) if right else 0.0)
    assert f1.estimates["m"].value == pytest.approx(100 * sum(each) / 4)
