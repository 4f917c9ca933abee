from __future__ import annotations

import pytest
import torch

from sabiyarn_edge.errors import InvalidInputError
from tests.tools.nano.tiny_corpus import ARTICLES
from tools.nano import training
from tools.nano.examples import NanoExamples
from tools.nano.recall import measure_recall, recalled_by_model
from tools.nano.tokenizer import train_tokenizer
from tools.nano.training import Recipe, learning_rate_factor, train


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((article.text for article in ARTICLES), vocab_size=340)


@pytest.fixture(scope="module")
def examples(tokenizer):
    return NanoExamples(ARTICLES, tokenizer)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(**changes):
    return Recipe(n_layer=2, n_heads=2, n_embd=32, batch_tokens=128, **changes)


def trained(examples, tokenizer, **changes):
    return train(examples, tokenizer.get_vocab_size(), small(**changes), show_progress=False)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_learns_its_corpus_by_heart(examples, tokenizer):
    model = trained(examples, tokenizer, epochs=50).model
    assert not model.training
    recalls = measure_recall(recalled_by_model(model), examples)
    assert sum(recall.exact for recall in recalls) >= 0.85 * sum(recall.total for recall in recalls)


def test_the_seed_decides(examples, tokenizer):
    once, again, other = (
        weights(trained(examples, tokenizer, epochs=2, seed=seed).model) for seed in (1, 1, 2)
    )
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_broken_training_goes_on_as_if_it_had_not_been(examples, tokenizer, tmp_path, monkeypatch):
    state = tmp_path / "state"
    recipe, vocab_size = small(epochs=3), tokenizer.get_vocab_size()
    whole = train(examples, vocab_size, recipe, state_file=tmp_path / "other", show_progress=False)
    run_epoch = training._run_epoch

    def break_off(state, examples, recipe, epoch, bar):
        if epoch == 2:
            raise KeyboardInterrupt
        run_epoch(state, examples, recipe, epoch, bar)

    monkeypatch.setattr(training, "_run_epoch", break_off)
    with pytest.raises(KeyboardInterrupt):
        train(examples, vocab_size, recipe, state_file=state, show_progress=False)
    monkeypatch.setattr(training, "_run_epoch", run_epoch)
    resumed = train(examples, vocab_size, recipe, state_file=state, show_progress=False)
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert resumed.cpu_seconds > 0


def test_the_state_of_another_training_is_refused(examples, tokenizer, tmp_path):
    state = tmp_path / "state"
    train(examples, tokenizer.get_vocab_size(), small(epochs=1), state_file=state, show_progress=False)
    with pytest.raises(InvalidInputError, match=r"'epochs': 1.*'epochs': 2.*or delete the file"):
        train(examples, tokenizer.get_vocab_size(), small(epochs=2), state_file=state, show_progress=False)


def test_shows_loss_and_speed(examples, tokenizer, capsys):
    train(examples, tokenizer.get_vocab_size(), small(epochs=1), show_progress=True)
    shown = capsys.readouterr().err
    assert "loss" in shown and "tokens/s" in shown


def test_the_learning_rate_rises_shortly_and_falls_to_almost_nothing():
    factors = [learning_rate_factor(step / 1000) for step in range(1001)]
    top = factors.index(max(factors))
    assert 20 <= top <= 30 and 0.99 < factors[top] <= 1.0
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == pytest.approx(0.01)
