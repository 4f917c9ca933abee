"""Lines as tasks: the records say what run_task() gives for the line alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.jobs import run_batch
from tests.jobs.conftest import records_of

DOCUMENT = "Gbogbo ènìyàn. Ilé ni mo wà.\n\nMo fẹ́ jẹun. Ó dára."
pytestmark = pytest.mark.filterwarnings("ignore:.*answers of the task")

QUICK: dict[str, Any] = {"max_new_tokens": 5}


def batch(tasked: EdgeGenerator, lines: Any, folder: Path, **arguments: Any) -> list[dict[str, Any]]:
    run_batch(tasked, lines, folder / "out.jsonl", overwrite=True, **arguments)
    return records_of(folder / "out.jsonl")


def test_a_document_is_cut_into_units_and_joined(tasked: EdgeGenerator, tmp_path: Path) -> None:
    lines = [
        {"id": "d", "text": DOCUMENT, "reference": "left alone"},
        {"id": "e", "text": "ọmọ", "to": "Hausa"},
    ]
    one, other = batch(
        tasked, lines, tmp_path, task="translate", slots={"to": "yor"}, options=QUICK, ids=True
    )
    assert one["text"] == tasked.translate(DOCUMENT, "yor", **QUICK)
    assert len(one["ids"]) == 4  # sentences
    assert one["tokens"]["generated"] == sum(map(len, one["ids"]))
    assert other["text"] == tasked.translate("ọmọ", "hau", **QUICK)


def test_draws_of_a_text_have_its_seed(tasked: EdgeGenerator, tmp_path: Path) -> None:
    options = {**QUICK, "do_sample": True, "num_beams": 1, "seed": 4}
    lines = [{"id": name, "text": DOCUMENT} for name in "ab"]
    first = batch(tasked, lines, tmp_path, task="clean", options=options)
    assert first[0]["text"] != first[1]["text"]
    assert batch(tasked, lines[::-1], tmp_path, task="clean", options=options) == first[::-1]


def test_labels_and_entities(tasked: EdgeGenerator, tmp_path: Path) -> None:
    texts = ["Gbogbo ènìyàn", "Mbụ"]
    for record, expected in zip(
        batch(tasked, texts, tmp_path, task="classify", labels=["good", "bad"]),
        tasked.classify(texts, ["good", "bad"]),
        strict=True,
    ):
        assert (record["label"], record["probabilities"]) == (expected.label, expected.probabilities)
    for record, entities in zip(
        batch(tasked, texts, tmp_path, task="tag_entities", options=QUICK),
        tasked.tag_entities(texts, **QUICK),
        strict=True,
    ):
        assert record["entities"] == [vars(entity) for entity in entities]


def test_what_a_task_does_not_take(tasked: EdgeGenerator, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\n")
    with pytest.raises(InvalidInputError, match="needs to"):  # before anything is written
        run_batch(tasked, tmp_path / "in.txt", tmp_path / "out.jsonl", task="translate")
    with pytest.raises(InvalidInputError, match="has no slot too; it has text, to"):
        run_batch(tasked, ["a"], tmp_path / "out.jsonl", task="translate", slots={"too": "yor"})
    with pytest.raises(InvalidInputError, match="all slots of the task are given"):
        run_batch(tasked, ["a"], tmp_path / "out.jsonl", task="clean", slots={"text": "a"})
    assert not (tmp_path / "out.jsonl").exists()
    (record,) = batch(tasked, [{"id": 1, "text": "a", "to": "xyz"}], tmp_path, task="translate")
    assert "to is 'xyz'" in record["error"]["message"]


def test_a_slot_of_a_line_is_one_string(tasked: EdgeGenerator, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"text": [], "to": "hau"},
        {"text": ["ọmọ", "Mbụ"], "to": "hau"},
        {"text": "ọmọ", "to": ["hau", "yor"]},
        {"text": None, "to": "hau"},
        {"text": "ọmọ", "to": "hau"},
    ]
    *refused, answered = batch(tasked, lines, tmp_path, task="translate", options=QUICK)
    assert [record["error"]["message"] for record in refused] == [
        f"{said}; it must be one string."
        for said in ("text is a list", "text is a list", "to is a list", "text is null")
    ]
    assert answered["text"] == tasked.translate("ọmọ", "hau", **QUICK)
