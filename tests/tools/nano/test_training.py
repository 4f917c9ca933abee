from __future__ import annotations

import pytest
import torch

from tests.tools.nano.tiny_corpus import ARTICLES
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


def test_learns_its_corpus_by_heart(examples, tokenizer):
    model = train(examples, tokenizer.get_vocab_size(), small(epochs=80), show_progress=False)
    assert not model.training
    tagged, untagged, translations = measure_recall(recalled_by_model(model), examples)
    assert tagged.share == translations.share == 1.0
    assert untagged.share >= 0.75  # shown less often


def test_the_seed_decides(examples, tokenizer):
    def weights(seed):
        model = train(examples, tokenizer.get_vocab_size(), small(epochs=2, seed=seed), show_progress=False)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_ends_when_its_minutes_are_over(examples, tokenizer, capsys):
    recipe = small(epochs=1_000_000, max_minutes=0.01)
    model = train(examples, tokenizer.get_vocab_size(), recipe, show_progress=True)
    assert model.config.block_size >= examples.longest()
    assert "tokens/s" in capsys.readouterr().err


def test_the_learning_rate_rises_shortly_and_falls_to_almost_nothing():
    factors = [learning_rate_factor(step / 1000) for step in range(1001)]
    top = factors.index(max(factors))
    assert 20 <= top <= 30 and 0.99 < factors[top] <= 1.0
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == pytest.approx(0.01)
