"""Tokenizer, generation_config.json, tasks.json: what is copied, completed, and said when something is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import Unigram, WordLevel

from sabiyarn_edge.chat.template import ChatTemplate
from sabiyarn_edge.errors import CheckpointError, InvalidInputError
from sabiyarn_edge.export.side_files import (
    copy_chat_template,
    copy_tokenizer,
    write_generation_config,
    write_tasks,
)
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.tasks.task_file import TaskFile


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "checkpoint").mkdir()
    return tmp_path / "checkpoint"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def write(folder: Path, **files: Any) -> None:
    for name, values in files.items():
        (folder / f"{name}.json").write_text(values if isinstance(values, str) else json.dumps(values))


def completed(source: Path, out: Path) -> tuple[dict[str, Any], list[str]]:
    notes = write_generation_config(source, out, 100)
    GenerationConfig.load(out)  # the device must be able to read it
    return json.loads((out / "generation_config.json").read_text()), notes


def save_tokenizer(folder: Path, model: Any = None) -> None:
    """Of 92 tokens unless a model is given: 90 words, and two special tokens, as SabiYarn names them."""
    tokenizer = Tokenizer(model or WordLevel({f"ọ̀rọ̀{i}": i for i in range(90)}, unk_token="ọ̀rọ̀0"))
    if model is None:
        tokenizer.add_special_tokens(["|end_of_text|", "<pad>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def test_tokenizer_is_copied_byte_for_byte(source: Path, out: Path) -> None:
    save_tokenizer(source)
    assert copy_tokenizer(source, out, 92) == []
    assert (out / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_the_chat_template_is_copied_with_its_tokens(source: Path, out: Path) -> None:
    copy_chat_template(source, out)
    assert list(out.iterdir()) == []
    write(source, tokenizer_config={"bos_token": "<s>"}, special_tokens_map={"eos_token": "</s>"}, other={})
    template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    (source / "chat_template.jinja").write_text(template)
    copy_chat_template(source, out)
    copied = ["chat_template.jinja", "special_tokens_map.json", "tokenizer_config.json"]
    assert sorted(path.name for path in out.iterdir()) == copied
    pytest.importorskip("jinja2")
    found = ChatTemplate.find(out)
    assert found is not None and found.render([{"role": "user", "content": "a"}]) == "<s>a</s>"


def test_a_tokenizer_larger_than_the_model(source: Path, out: Path) -> None:
    save_tokenizer(source)
    [note] = copy_tokenizer(source, out, 91)
    assert "has 92 tokens, but vocab_size is 91" in note


@pytest.mark.parametrize("content", ["", "{}", '{"version": "1.0", "model"'])
def test_a_damaged_tokenizer(source: Path, out: Path, content: str) -> None:
    (source / "tokenizer.json").write_text(content)
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json is not a tokenizer .* copy it again.*remove it"
    ):
        copy_tokenizer(source, out, 100)


@pytest.mark.parametrize("second", ["b", "»"])
def test_a_tokenizer_over_which_the_library_panics(source: Path, out: Path, second: str) -> None:
    """It cuts the prefix of continued words off a merge's second token: more than there is here, or half a letter."""
    model = {
        "type": "BPE",
        "vocab": {"a": 0, second: 1, f"a{second}": 2},
        "merges": [["a", second]],
        "continuing_subword_prefix": "##" if second == "b" else "#",
    }
    write(source, tokenizer={"version": "1.0", "model": model})
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        copy_tokenizer(source, out, 100)


def test_no_tokenizer(source: Path, out: Path) -> None:
    [note] = copy_tokenizer(source, out, 100)
    assert "no tokenizer.json" in note
    assert "token ids only" in note


@pytest.mark.parametrize("file", ["tokenizer.model", "spiece.model", "tokenizer_config.json", "vocab.json"])
def test_a_tokenizer_of_another_form(source: Path, out: Path, file: str) -> None:
    (source / file).touch()
    [note] = copy_tokenizer(source, out, 100)
    assert f"has {file} but no tokenizer.json" in note
    assert "AutoTokenizer.from_pretrained" in note


def test_generation_config_is_kept(source: Path, out: Path) -> None:
    write(source, config={"eos_token_id": 3}, generation_config={"eos_token_id": [5, 6], "top_k": 40})
    assert completed(source, out) == ({"eos_token_id": [5, 6], "top_k": 40}, [])


def test_ids_of_config_json(source: Path, out: Path) -> None:
    write(source, config={"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    assert completed(source, out) == ({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}, [])


def test_ids_are_completed_from_the_next_source(source: Path, out: Path) -> None:
    write(source, generation_config={"eos_token_id": 2, "pad_token_id": None}, config={"pad_token_id": 4})
    assert completed(source, out) == ({"eos_token_id": 2, "pad_token_id": 4}, [])


def test_an_end_token_that_no_file_names_is_found_in_the_vocabulary(source: Path, out: Path) -> None:
    save_tokenizer(source)
    write(source, config={})
    assert completed(source, out) == ({"eos_token_id": 90}, [])
    write(source, config={}, tokenizer_config={"eos_token": "<pad>"})
    assert completed(source, out) == ({"eos_token_id": 91}, [])  # a file's word counts more


def test_another_models_tokenizer_lends_its_end_token(source: Path, out: Path, tmp_path: Path) -> None:
    lender = tmp_path / "lender"
    lender.mkdir()
    save_tokenizer(lender)
    write(source, config={"pad_token_id": 4})
    assert write_generation_config(source, out, 100, lender) == []
    assert json.loads((out / "generation_config.json").read_text()) == {"eos_token_id": 90, "pad_token_id": 4}
    write(lender, generation_config={"eos_token_id": [2, 3]})
    assert write_generation_config(source, out, 100, lender) == []
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [2, 3]
    write(source, generation_config={"eos_token_id": 7})  # the checkpoint's own comes first
    assert write_generation_config(source, out, 100, lender) == []
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == 7


@pytest.mark.parametrize("form", ["|end_of_text|", {"content": "|end_of_text|", "lstrip": False}])
def test_ids_by_the_names_of_special_tokens(source: Path, out: Path, form: object) -> None:
    save_tokenizer(source)
    write(
        source, config={}, tokenizer_config={"eos_token": form, "pad_token": "<pad>", "bos_token": "<absent>"}
    )
    assert completed(source, out) == ({"eos_token_id": 90, "pad_token_id": 91}, [])


def test_ids_by_name_from_a_unigram_vocabulary(source: Path, out: Path) -> None:
    save_tokenizer(source, Unigram([("<unk>", 0.0), ("</s>", -1.5)], 0, False))
    write(source, config={}, special_tokens_map={"eos_token": "</s>"})
    assert completed(source, out) == ({"eos_token_id": 1}, [])


def test_no_end_token_is_said(source: Path, out: Path) -> None:
    write(source, config={})
    values, [note] = completed(source, out)
    assert values == {}
    assert "names no end token" in note


@pytest.mark.parametrize("wrong", [100, -1, "2", 1.5, [1, 100], True])
def test_ids_that_are_none_are_left_out(source: Path, out: Path, wrong: object) -> None:
    write(source, config={"eos_token_id": 2}, generation_config={"eos_token_id": wrong})
    values, [note] = completed(source, out)
    assert values == {"eos_token_id": 2}
    assert f"eos_token_id {wrong!r}" in note


def test_only_the_end_token_may_be_many(source: Path, out: Path) -> None:
    write(source, config={"eos_token_id": [2, 3], "pad_token_id": [4, 5]})
    values, [note] = completed(source, out)
    assert values == {"eos_token_id": [2, 3]}
    assert "pad_token_id [4, 5]" in note


def test_a_damaged_file_is_left_out(source: Path, out: Path) -> None:
    write(source, config={"eos_token_id": 2}, generation_config="{")
    values, [note] = completed(source, out)
    assert values == {"eos_token_id": 2}
    assert "generation_config.json is not valid JSON" in note


# --- tasks.json

TASKS = '{"format_version": 1,\n "tasks": {"say": {"template": "{text} :"}}}'


def save_tagged(folder: Path, *tags: str) -> None:
    save_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(list(tags))
    tokenizer.save(str(folder / "tokenizer.json"))


def test_the_familys_tasks_are_written_where_the_vocabulary_has_their_tags(source: Path, out: Path) -> None:
    save_tagged(source, "<translate>", "<yor>", "<clean>")
    [note] = write_tasks(source, out, None)
    assert "SabiYarn's templates for translate, whose tags the vocabulary has" in note
    tasks = TaskFile.load(out)
    assert list(tasks.tasks) == ["translate"]
    assert list(tasks.task("translate").languages["to"]) == ["yor"]


@pytest.mark.parametrize("tags", [None, ("<yor>",)])
def test_no_tags_no_tasks(source: Path, out: Path, tags: tuple[str, ...] | None) -> None:
    if tags is not None:
        save_tagged(source, *tags)
    assert write_tasks(source, out, None) == []
    assert not (out / "tasks.json").exists()


def test_a_file_that_is_given_wins_over_the_checkpoints_own_and_that_over_the_familys(
    source: Path, out: Path, tmp_path: Path
) -> None:
    save_tagged(source, "<translate>", "<yor>")
    (source / "tasks.json").write_text(TASKS)
    assert write_tasks(source, out, None) == []
    assert (out / "tasks.json").read_text() == TASKS
    given = tmp_path / "given.json"
    given.write_text(TASKS.replace("say", "sing"))
    assert write_tasks(source, out, given) == []
    assert list(TaskFile.load(out).tasks) == ["sing"]


def test_a_bad_file_names_the_line(source: Path, out: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text(TASKS.replace("{text}", "text"))
    with pytest.raises(InvalidInputError, match=r"given\.json, line 2: tasks\.say\.template: it has no slot"):
        write_tasks(source, out, given)
    assert not (out / "tasks.json").exists()
