from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from sabiyarn_edge.modeling import GPTJXConfig, GPTJXForCausalLM
from tests.tools.nano.tiny_corpus import ARTICLES
from tools.nano import familiarity
from tools.nano.examples import NanoExamples
from tools.nano.familiarity import mean_log_probs, measure_familiarity, unknown_sentences
from tools.nano.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def examples():
    return NanoExamples(ARTICLES, train_tokenizer((a.text for a in ARTICLES), vocab_size=300))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GPTJXConfig(block_size=256, vocab_size=300, n_layer=1, n_heads=2, n_embd=16)
    return GPTJXForCausalLM(config, j_bias=True).eval()


def test_means_are_those_of_each_prompt_alone(model):
    prompts = [(1, 2, 3), (4, 5), (7, 8, 9, 10, 11, 12)]
    expected = []
    for ids in prompts:
        with torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        expected.append(np.mean([float(log_probs[i, ids[i + 1]]) for i in range(len(ids) - 1)]))
    np.testing.assert_allclose(sorted(mean_log_probs(model, prompts)), sorted(expected), rtol=1e-5)


@pytest.mark.parametrize("language", ["eng", "yor"])
def test_sentences_are_random_and_differ(language):
    sentences = unknown_sentences(language, random.Random(0))
    assert len(set(sentences)) == len(sentences) == familiarity.SENTENCES
    assert sentences == unknown_sentences(language, random.Random(0))
    assert sentences != unknown_sentences(language, random.Random(1))


def test_the_line_lies_half_way_between_the_known_and_the_unknown(model, examples, monkeypatch):
    means = iter([np.array([-1.0] * 999 + [-9.0]), np.array([-5.0] * 999 + [-0.5])])
    monkeypatch.setattr(familiarity, "mean_log_probs", lambda *_: next(means))
    found = measure_familiarity(model, examples)
    assert found.least_log_prob == -3.0
    assert (found.false_alarms, found.known, found.hits, found.unknown) == (1, 1000, 999, 1000)
    assert "999 of 1000 random sentences, 1 of 1000 of the document" in str(found)
