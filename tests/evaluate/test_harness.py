"""SabiYarnLM answers the harness's requests as score() and generate() do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval.api.model", reason="the extra [harness] is not installed")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.evaluate.harness import SabiYarnLM


@pytest.fixture(scope="module")
def model(text_model: Path) -> SabiYarnLM:
    return SabiYarnLM(text_model, num_threads=1)


@pytest.fixture(scope="module")
def generator(text_model: Path) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(text_model, num_threads=1)


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, given, index) for index, given in enumerate(arguments)]


def test_log_likelihoods(model: SabiYarnLM, generator: EdgeGenerator) -> None:
    tokenizer = generator.tokenizer
    greedy = generator.generate("ọmọ", max_new_tokens=3).generated[0]
    text = tokenizer.decode(greedy, skip_special_tokens=False)
    pairs = [("ọmọ", " ilé"), ("ọmọ ", "ilé"), ("", "ilé"), ("word " * 100, "b")]
    found = model.loglikelihood(asked("loglikelihood", *pairs))
    [expected] = generator.score(
        [tokenizer.encode(" ilé", add_special_tokens=False)], [tokenizer.encode("ọmọ")]
    )
    assert found[0][0] == found[1][0] == expected.total  # a blank at the end belongs to what follows
    after = tokenizer.encode("b", add_special_tokens=False)
    kept = tokenizer.encode("word " * 100)[: len(tokenizer.encode(("word " * 100).rstrip()))]
    [cut] = generator.score([[*tokenizer.encode(" b", add_special_tokens=False)]], [kept[-94:]])
    assert len(after) == 1
    assert found[3][0] == pytest.approx(cut.total)
    if tokenizer.encode(text, add_special_tokens=False) == greedy:
        assert model.loglikelihood(asked("loglikelihood", ("ọmọ", text)))[0][1] is True
    assert found[2][1] in (True, False)


def test_whole_texts_slide(model: SabiYarnLM, generator: EdgeGenerator) -> None:
    long = "Gbogbo ènìyàn " * 30
    found = model.loglikelihood_rolling(asked("loglikelihood_rolling", ("ọmọ",), (long,)))
    for text, total in zip(("ọmọ", long), found, strict=True):
        ids = [model._start, *generator.tokenizer.encode(text)]
        [whole] = generator.score([ids], overflow="slide")
        assert total == whole.total


def test_texts_until_a_string(model: SabiYarnLM, generator: EdgeGenerator) -> None:
    options = {"until": ["zzz"], "max_gen_toks": 5, "do_sample": False, "temperature": 0.0}
    [text] = model.generate_until(asked("generate_until", ("ọmọ", options)))
    assert text == generator.generate("ọmọ", max_new_tokens=5, stop_strings=["zzz"]).text


def test_a_small_task_without_a_network(
    model: SabiYarnLM, generator: EdgeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its accuracy is what score() of its choices gives."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    questions = [
        {"question": "ọmọ", "choices": ["ilé", "òmìnira"], "gold": 0},
        {"question": "Gbogbo", "choices": ["ènìyàn", "a"], "gold": 1},
        {"question": "ẹ̀tọ́", "choices": ["iyì", "ni"], "gold": 0},
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in questions), encoding="utf-8")
    task = {
        "task": "small",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(tmp_path)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    found = simple_evaluate(model, tasks=[task], bootstrap_iters=0, log_samples=False)
    right = 0
    for question in questions:
        before = [generator.tokenizer.encode(question["question"])] * 2
        after = [
            generator.tokenizer.encode(f" {choice}", add_special_tokens=False)
            for choice in question["choices"]
        ]
        totals = [score.total for score in generator.score(after, before)]
        right += totals.index(max(totals)) == question["gold"]
    assert found["results"]["small"]["acc,none"] == pytest.approx(right / len(questions))
