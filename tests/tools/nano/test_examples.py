from __future__ import annotations

import random

import pytest
import torch

from tests.tools.nano.tiny_corpus import ARTICLES
from tools.nano.corpus import Article
from tools.nano.examples import Example, NanoExamples, group_by_length, to_tensors
from tools.nano.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((article.text for article in ARTICLES), vocab_size=400)


@pytest.fixture(scope="module")
def examples(tokenizer):
    return NanoExamples(ARTICLES, tokenizer)


def find(language, number):
    return next(a for a in ARTICLES if (a.language, a.number) == (language, number))


def written(tokenizer, ids):
    return tokenizer.decode(list(ids), skip_special_tokens=False)


def test_continuation(examples, tokenizer):
    article = find("yor", 2)
    tagged = examples.continuation(article)
    assert written(tokenizer, tagged.ids) == "<yor>Òjò rọ̀.|end_of_text|"
    assert tagged.ids[0] == tokenizer.token_to_id("<yor>")
    assert tagged.answer_start == 1
    assert examples.continuation(article, tagged=False).ids == tagged.ids[1:]


def test_a_prompt_as_a_user_writes_it_is_the_beginning_of_its_example(examples, tokenizer):
    typed = tokenizer.encode("<yor> Odò náà gbòòrò").ids
    assert examples.continuation(find("yor", 0)).ids[: len(typed)] == tuple(typed)
    typed = tokenizer.encode("<translate> Rain fell. <hau>").ids
    translation = examples.translation(find("eng", 2), find("hau", 2))
    assert translation.ids[: translation.answer_start] == tuple(typed)


def test_translation(examples, tokenizer):
    whole = examples.translation(find("eng", 0), find("hau", 0))
    assert written(tokenizer, whole.ids[whole.answer_start :]) == find("hau", 0).text + "|end_of_text|"
    cut = examples.translation(find("eng", 0), find("hau", 0), words=5)
    assert written(tokenizer, cut.ids[: cut.answer_start]) == "<translate>The river is wide and<hau>"
    assert cut.ids[cut.answer_start :] == whole.ids[whole.answer_start :]


def test_pairs_are_english_with_each_other_language(examples, tokenizer):
    assert len(examples.pairs) == 8
    assert all(
        e.language == "eng" and e.number == o.number and o.language != "eng" for e, o in examples.pairs
    )
    without_english = NanoExamples([a for a in ARTICLES if a.language != "eng"], tokenizer)
    assert without_english.pairs == []


def test_an_epoch_holds_everything_once_and_varies_with_the_seed_only(examples, tokenizer):
    epoch = examples.epoch(random.Random(3))
    assert len(epoch) == len(ARTICLES) + len(examples.pairs)
    answers = sorted(written(tokenizer, e.ids[e.answer_start :]) for e in epoch[len(ARTICLES) :])
    assert answers == sorted(other.text + "|end_of_text|" for _, other in examples.pairs)
    assert epoch == examples.epoch(random.Random(3))
    assert epoch != examples.epoch(random.Random(4))


def test_shortened_english_still_tells_which_article_it_is(tokenizer):
    twins = ["The river is wide.", "The river is long and cold.", "The tree", "A very long text " * 20]
    articles = [Article("eng", number, text.strip()) for number, text in enumerate(twins)]
    articles += [Article("hau", number, f"na {number}") for number in range(len(twins))]
    examples = NanoExamples(articles, tokenizer)
    seen = {number: set() for number in range(len(twins))}
    rng = random.Random(0)
    for _ in range(200):
        for example in examples.epoch(rng)[len(articles) :]:
            english = tokenizer.decode(list(example.ids[1 : example.answer_start]))
            seen[int(tokenizer.decode(list(example.ids[example.answer_start :]))[-1])].add(english)
    assert seen[0] == {"The river is wide."}
    assert seen[1] == {"The river is long", "The river is long and", "The river is long and cold."}
    assert seen[2] == {"The tree"}
    lengths = sorted(len(text.split(" ")) for text in seen[3])
    assert lengths[0] == 1 and lengths[-1] == 80 and len(lengths) > 20


def test_longest_is_the_longest_of_all(examples):
    lengths = [len(e.ids) for seed in range(5) for e in examples.epoch(random.Random(seed))]
    assert examples.longest() == max(lengths)


def made_up(*lengths):
    return [Example(tuple(range(1, length + 1)), answer_start=1) for length in lengths]


@pytest.mark.parametrize("rng", [None, random.Random(0)], ids=["strict", "shuffled"])
def test_batches_hold_everything_once_within_the_limit(rng):
    sizes = random.Random(1)
    lengths = [sizes.randint(2, 90) for _ in range(200)] + [300]
    batches = list(group_by_length(made_up(*lengths), max_tokens=256, rng=rng))
    assert sorted(len(e.ids) for batch in batches for e in batch) == sorted(lengths)
    for batch in batches:
        width = max(len(e.ids) for e in batch)
        assert len(batch) * width <= 256 or len(batch) == 1
    padded = sum(len(batch) * max(len(e.ids) for e in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)


def test_without_a_generator_short_ones_come_first():
    batches = list(group_by_length(made_up(9, 3, 5, 4), max_tokens=10))
    assert [[len(e.ids) for e in batch] for batch in batches] == [[3, 4], [5], [9]]


def test_tensors_have_shifted_targets_for_the_answer_only():
    batch = [Example((5, 6, 7, 8), answer_start=2), Example((9, 4), answer_start=1)]
    input_ids, targets = to_tensors(batch)
    assert torch.equal(input_ids, torch.tensor([[5, 6, 7], [9, 0, 0]]))
    assert torch.equal(targets, torch.tensor([[-100, 7, 8], [4, -100, -100]]))
