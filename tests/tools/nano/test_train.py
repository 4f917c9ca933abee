"""The command: files written, figures printed, errors in one line, nothing left behind."""

from __future__ import annotations

import json

import pytest

from sabiyarn_edge.export import export_model
from sabiyarn_edge.modeling import GPTJXForCausalLM
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.tasks.task_file import TaskFile
from tests.tools.nano.tiny_corpus import ARTICLES, write_corpus
from tools.nano import familiarity, train
from tools.nano.training import Recipe


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.jsonl")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "models" / "tiny"


@pytest.fixture(autouse=True)
def few_sentences(monkeypatch):
    """Scoring random sentences takes most of the time of a short training."""
    monkeypatch.setattr(familiarity, "SENTENCES", 10)


def run(*arguments):
    return train.main([str(argument) for argument in arguments])


def quick(corpus, out):
    return run(corpus, "--out", out, "--epochs", 1, "--threads", 1, "--quiet")


def test_writes_a_checkpoint_and_prints_what_it_recalls(corpus, out, capsys):
    assert quick(corpus, out) == 1  # after one epoch the figures are too low
    printed = capsys.readouterr()
    first, *lines = printed.out.splitlines()
    assert first.startswith("prompts below -")
    totals = [line.split(":")[-1].split()[2] for line in lines]
    assert totals == ["15", "15", "10", "10", "10", "6", "15"]
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tasks.json",
        "tokenizer.json",
        "training.json",
    ]
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]
    generation_config = GenerationConfig.load(out)
    assert generation_config.eos_token_id == generation_config.pad_token_id == 0
    report = json.loads((out / "training.json").read_text())
    assert report["recipe"]["epochs"] == 1
    known = TaskFile.load(out).known_prompts
    assert known.least_log_prob == report["familiarity"]["least_log_prob"]
    assert "Universal Declaration" in known.note
    model = GPTJXForCausalLM.from_pretrained(out)
    assert model.config.n_embd == Recipe.n_embd
    assert model.j_bias

    assert run(corpus, "--evaluate", out) == 1
    assert capsys.readouterr().out.splitlines() == lines


def test_an_export_recalls_as_much_as_its_checkpoint(corpus, out, tmp_path, capsys):
    recipe = Recipe(epochs=15, n_layer=2, n_heads=2, n_embd=32, batch_tokens=128)
    recalls, _ = train.train_folder(ARTICLES, out, recipe, show_progress=False)
    exact, total = sum(recall.exact for recall in recalls), sum(recall.total for recall in recalls)
    assert 0 < exact < total  # some and not all, so that it tells
    export_model(out, tmp_path / "exported", dtype="float16", progress=False)
    run(corpus, "--evaluate", tmp_path / "exported")
    assert capsys.readouterr().out.splitlines() == [str(recall) for recall in recalls]


def test_the_tags_are_in_the_tokenizer_file(corpus, out):
    quick(corpus, out)
    added = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    assert [token["id"] for token in added] == list(range(16))
    assert {"<translate>", "<correct>", "<lang_id>", "<yor>", "<knc>"} < {token["content"] for token in added}


def test_enough_recalled_is_exit_code_0(corpus, out, monkeypatch):
    monkeypatch.setattr(train, "REQUIRED_SHARE", 0.0)
    assert quick(corpus, out) == 0


def check_refused(captured, *, out, message):
    assert captured.out == ""
    assert captured.err.startswith("tools.nano.train: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("", "holds no article"), ("nonsense", "line 1 is not JSON")],
    ids=["missing", "empty", "malformed"],
)
def test_a_bad_corpus_is_refused_in_one_line(tmp_path, out, capsys, content, message):
    path = tmp_path / "bad.jsonl"
    if content is not None:
        path.write_text(content)
    assert run(path, "--out", out) == 2
    check_refused(capsys.readouterr(), out=out, message=message)


def test_an_existing_folder_is_not_touched(corpus, out, capsys):
    out.mkdir(parents=True)
    (out / "mine.txt").write_text("mine")
    assert run(corpus, "--out", out) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_an_empty_folder_may_be_filled(corpus, out):
    out.mkdir(parents=True)
    quick(corpus, out)
    assert (out / "model.safetensors").is_file()


def test_an_unwritable_target_is_refused_before_training(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "train", lambda *_, **__: pytest.fail("trained first"))
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "folder"
    assert run(corpus, "--out", out) == 2
    check_refused(capsys.readouterr(), out=out, message="cannot write")


def test_an_interrupted_training_leaves_nothing(corpus, out, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", interrupt)
    assert quick(corpus, out) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []


def test_evaluating_what_is_no_checkpoint(corpus, tmp_path, capsys):
    assert run(corpus, "--evaluate", tmp_path) == 1
    check_refused(capsys.readouterr(), out=tmp_path / "none", message="tokenizer.json")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--out", "a", "--evaluate", "b"], ["--out", "a", "--epochs", "0"], ["--out", "a", "--epochs", "x"]],
    ids=["neither", "both", "no-epoch", "no-number"],
)
def test_wrong_usage_is_exit_code_2(corpus, arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(corpus, *arguments)
    assert exit_.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
