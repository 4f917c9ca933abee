"""evaluate_models: answers, scores and the command's table."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.cli import main
from sabiyarn_edge.cli.evaluate import _evaluated
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.evaluate import evaluate_models
from tests.export.models import Exported

SOURCES = ["Gbogbo ènìyàn", "Ilé ni mo wà", "ọmọ"]
REFERENCES = ["ẹ̀tọ́ àti iyì", "a bí ní òmìnira", "ilé"]
OPTIONS: dict[str, Any] = {"max_new_tokens": 5, "num_beams": 1}


@pytest.fixture(scope="module")
def models(tagged: Exported, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    copy = tmp_path_factory.mktemp("models") / "copy"
    shutil.copytree(tagged.folder, copy)
    return [tagged.folder, copy]


@pytest.mark.filterwarnings("ignore:.*answers of the task")
def test_answers_and_perplexities_of_a_task(models: list[Path]) -> None:
    pytest.importorskip("sacrebleu")
    report = evaluate_models(
        models,
        SOURCES,
        REFERENCES,
        task="translate",
        slots={"to": "yor"},
        options=OPTIONS,
        samples=20,
        threads=1,
    )
    with EdgeGenerator.from_pretrained(models[0], num_threads=1) as generator:
        answers = generator.translate(SOURCES, "yor", **OPTIONS)
        total = tokens = 0.0
        end = generator.generation_config.eos_token_ids[:1]
        for source, reference in zip(SOURCES, REFERENCES, strict=True):
            prompt = generator.tasks.task("translate").template.fill({"text": source, "to": "yor"}, ("to",))
            given = generator.tokenizer.encode_parts(prompt)
            after = generator.tokenizer.encode(f" {reference}", add_special_tokens=False)
            [score] = generator.score([[*given, *after, *end]])
            total += score.log_probs[len(given) - 1 :].sum()
            tokens += len(after) + len(end)
    one, other = report["models"].values()
    assert one["answers"] == other["answers"] == answers
    # Sums of float32 in another order.
    assert one["metrics"]["reference perplexity"]["value"] == pytest.approx(
        math.exp(-total / tokens), rel=1e-5
    )
    assert other["metrics"]["chrF++"]["p_value"] == 1.0
    assert list(report["metrics"]) == ["chrF++", "BLEU", "exact match", "reference perplexity"]
    assert one["weights_mib"] > 0 < one["lines_per_second"]
    json.dumps(report)


def test_labels_as_the_command_prints_them(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(SOURCES) + "\n", encoding="utf-8")
    (tmp_path / "labels.txt").write_text("good\nbad\ngood\n")
    command = [
        *("evaluate", str(models[1]), "--task", "classify", "--labels", "good,bad", "--threads", "1"),
        *("--source", str(tmp_path / "texts.txt"), "--reference", str(tmp_path / "labels.txt")),
    ]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "model"
    assert "accuracy" in lines[0] and "macro F1" in lines[0]
    assert lines[1].startswith("copy ")
    assert "3 texts, 1000 resampled test sets" in lines
    (tmp_path / "labels.txt").write_text("good\n")
    assert main(command) == 2
    assert "there are 3 sources and 1 references" in capsys.readouterr().err


def test_references_that_are_too_long_are_left_out_and_counted(models: list[Path]) -> None:
    pytest.importorskip("sacrebleu")
    long = "ọmọ " * 500
    for references, measured in (([long, REFERENCES[1], long], True), ([long] * 3, False)):
        report = evaluate_models(models[1:], SOURCES, references, options=OPTIONS, samples=20, threads=1)
        report = json.loads(json.dumps(report, allow_nan=False))
        out = references.count(long)
        assert report["models"]["copy"]["references_left_out"] == out
        value = report["models"]["copy"]["metrics"]["reference perplexity"]["value"]
        _, row, *notes = _evaluated(report)
        cell = re.split("  +", row)[4]
        assert cell.startswith(f"{value:.2f} [") if measured else (value, cell) == (None, "-")
        assert f"reference perplexity of copy: without {out} references, which are too long" in notes


def test_exports_compared_as_the_command_prints_them(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(SOURCES) + "\n", encoding="utf-8")
    assert main(["evaluate", "--compare", *map(str, models), "--text", str(tmp_path / "texts.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[-2:] == ["0.00000", "100.00%"]


def test_what_is_refused(models: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidInputError, match=r"copy: the task translate has no slot too"):
        evaluate_models(models[1:], SOURCES, REFERENCES, task="translate", slots={"too": "yor"}, threads=1)
    with pytest.raises(InvalidInputError, match="a model is given twice"):
        evaluate_models([models[0], models[0]], SOURCES, REFERENCES)
    assert main(["evaluate", "nano", "--source", "a.txt"]) == 2
    assert "--reference FILE is needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"options": {"num_beams": 2, "num_return_sequences": 2}},
            "num_return_sequences is 2, but one answer",
        ),
        ({"task": "tag_entities"}, "the task tag_entities gives entities"),
        (
            {"task": "classify", "labels": ["ẹ̀tọ́ àti iyì", "a bí ní òmìnira"]},
            r"line 3 of the references is 'ilé', which is no label of the task classify; they are ẹ̀tọ́ àti iyì, a bí",
        ),
    ],
)
def test_what_would_count_as_wrong_is_refused(
    models: list[Path], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        evaluate_models(models[1:], SOURCES, REFERENCES, threads=1, **arguments)


def test_a_model_that_cannot_be_read_ends_as_with_other_commands(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models[0], tmp_path / "model")
    (tmp_path / "texts.txt").write_text("ọmọ\n", encoding="utf-8")
    texts = str(tmp_path / "texts.txt")
    command = ["evaluate", str(tmp_path / "model"), "--source", texts, "--reference", texts]
    (tmp_path / "model" / "tokenizer.json").unlink()
    assert main(command) == 2
    assert "model: it has no tokenizer. Put the model's tokenizer.json" in capsys.readouterr().err
    (tmp_path / "model" / "weights.bin").write_bytes(b"")
    assert main(command) == main(["generate", "a", "--model", str(tmp_path / "model")]) == 1


def test_a_picture_is_refused_before_anything_runs_and_drawn_behind_the_table(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "texts.txt").write_text("ọmọ\n", encoding="utf-8")
    (tmp_path / "labels.txt").write_text("good \n")
    command = [
        *("evaluate", str(models[1]), "--task", "classify", "--labels", "good,bad", "--threads", "1"),
        *("--source", str(tmp_path / "texts.txt"), "--reference", str(tmp_path / "labels.txt"), "--picture"),
    ]
    for name, message in (("nodir/p.svg", "there is no folder"), ("p.xyz", "its ending must be one of")):
        assert main([*command, str(tmp_path / name)]) == 2
        told = capsys.readouterr()
        assert message in told.err and "[running" not in told.err and not told.out

    def full(*arguments: Any) -> None:
        raise InvalidInputError("no room")

    monkeypatch.setattr("sabiyarn_edge.evaluate.picture.draw_report", full)
    assert main([*command, str(tmp_path / "p.svg")]) == 2
    assert capsys.readouterr().out.splitlines()[1].startswith("copy ")


def test_a_line_that_is_not_utf_8_names_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.txt").write_text("a\n")
    (tmp_path / "bad.txt").write_bytes(b"a\n\xff\n")
    files = ["--source", str(tmp_path / "good.txt"), "--reference", str(tmp_path / "bad.txt")]
    assert main(["evaluate", "nano", *files]) == 2
    assert f"line 2 of {tmp_path / 'bad.txt'} is not UTF-8" in capsys.readouterr().err


def test_the_picture_shows_every_metric(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from sabiyarn_edge.evaluate.picture import draw_report

    estimate = {"value": 50.0, "low": 40.0, "high": 55.0, "p_value": None}
    report = {
        "metrics": {"chrF++": "", "BLEU": ""},
        "models": {
            name: {"metrics": {"chrF++": estimate, "BLEU": estimate}, "lines_per_second": 3.0}
            for name in ("one", "other")
        },
    }
    draw_report(report, tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert all(f"<!-- {word} -->" in text for word in ("chrF++", "BLEU", "lines/s", "one", "other"))
    with pytest.raises(InvalidInputError, match="its ending must be one of"):
        draw_report(report, tmp_path / "picture.odd")
