from __future__ import annotations

import pytest
import torch

from sabiyarn_edge.modeling import GPTJXConfig, GPTJXForCausalLM
from tests.tools.nano.tiny_corpus import ARTICLES
from tools.nano.examples import Example, NanoExamples
from tools.nano.recall import (
    Recall,
    measure_recall,
    recalled_by_model,
    rounded_to_float16,
)
from tools.nano.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def model():
    """Random, with weights large enough that the next token depends on those before it."""
    torch.manual_seed(0)
    config = GPTJXConfig(block_size=64, vocab_size=50, n_layer=2, n_heads=2, n_embd=16)
    model = GPTJXForCausalLM(config, j_bias=True).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.4)
    return model


@torch.no_grad()
def greedy(model, prompt, count):
    """One token at a time, without a cache: the oracle."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids


def test_agrees_with_greedy_decoding_token_by_token(model):
    right = [Example(tuple(greedy(model, (1, 2 + i), 3 + i)), answer_start=2) for i in range(12)]
    assert recalled_by_model(model)(right) == [True] * 12
    for position in range(2, 5):  # one token of the answer is another one
        ids = list(right[5].ids)
        ids[position] = (ids[position] + 1) % 50
        assert recalled_by_model(model)([Example(tuple(ids), answer_start=2)]) == [False]


def test_prompts_are_not_asked_for(model):
    prompt = (3, 3, 3, 3)
    assert greedy(model, (3,), 3) != list(prompt)
    assert recalled_by_model(model)([Example(tuple(greedy(model, prompt, 4)), answer_start=4)]) == [True]


def reciter(known):
    """Recalls the sequences that it knows, up to where it knows them."""
    return lambda questions: [
        any(ids[: len(question.ids)] == question.ids for ids in known) for question in questions
    ]


def test_measures_all_articles_in_all_tasks():
    examples = NanoExamples(ARTICLES, train_tokenizer([], vocab_size=0))  # a token for each byte
    tagged = [examples.continuation(a).ids for a in ARTICLES]
    untagged = [examples.continuation(a, tagged=False).ids for a in ARTICLES]
    translations = {
        (source.language, target.language, target.number): examples.translation(
            source.text, target.language, target.text
        ).ids
        for source in ARTICLES
        for target in ARTICLES
        if source.number == target.number and source.language != target.language
    }
    yoruba = [a for a in ARTICLES if a.language == "yor"]
    marked = [examples.diacritization(a.text).ids for a in yoruba]
    marked_sentences = [examples.diacritization(s).ids for s in examples.sentences(yoruba[4])]
    languages = [examples.identification(a.text, a.language).ids for a in ARTICLES]

    def exact(known):
        recalls = measure_recall(reciter(known), examples)
        assert [recall.total for recall in recalls] == [15, 15, 10, 10, 10, 6, 15]
        return [recall.exact for recall in recalls]

    assert exact([]) == [0] * 7
    assert exact(tagged[:5]) == [5, *[0] * 6]
    assert exact(untagged) == [0, 15, *[0] * 5]
    assert exact(list(translations.values())) == [0, 0, 10, 10, 10, 0, 0]
    some = [translations["yor", "hau", 2], translations["hau", "eng", 0]]
    assert exact(some) == [0, 0, 0, 1, 1, 0, 0]
    assert exact(marked) == [*[0] * 5, 4, 0]  # four articles are a sentence each
    assert exact(marked_sentences) == [*[0] * 5, 2, 0]
    assert exact(languages[3:]) == [*[0] * 6, 12]
    # 16 tokens of an article are given and 40 asked for: what comes later does not count
    cut = [ids[: 16 + 40] for ids in tagged]
    assert any(len(ids) > 56 for ids in tagged)
    assert exact(cut)[0] == 15
    assert exact([ids[:-1] for ids in cut])[0] == 0


def test_a_figure_says_how_many_of_how_many():
    assert str(Recall("texts", exact=299, total=310)) == "texts: 299 of 310 exact (96.5%)"
    assert Recall("texts", exact=1, total=4).share == 0.25


def test_rounding_changes_a_copy_only(model):
    before = [p.clone() for p in model.parameters()]
    rounded = rounded_to_float16(model)
    for parameter, original, kept in zip(rounded.parameters(), before, model.parameters(), strict=True):
        assert torch.equal(parameter, original.half().float())
        assert torch.equal(kept, original)
    assert rounded.lm_head.weight is rounded.transformer.wte.weight
