from __future__ import annotations

import random
import unicodedata
from collections import Counter

import pytest

from sabiyarn_edge.tasks.task_file import TaskFile
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.tools.nano.tiny_corpus import ARTICLES
from tools.nano.corpus import Article
from tools.nano.examples import TASKS, NanoExamples, without_marks
from tools.nano.tokenizer import LANGUAGES, train_tokenizer


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


def parts(tokenizer, example):
    start = example.answer_start
    return written(tokenizer, example.ids[:start]), written(tokenizer, example.ids[start:])


def test_continuation(examples, tokenizer):
    article = find("yor", 2)
    tagged = examples.continuation(article)
    assert written(tokenizer, tagged.ids) == "<yor>Òjò rọ̀.|end_of_text|"
    assert tagged.ids[0] == tokenizer.token_to_id("<yor>")
    assert tagged.answer_start == 1
    assert examples.continuation(article, tagged=False).ids == tagged.ids[1:]
    later = examples.continuation(find("eng", 4), sentence=1)
    assert written(tokenizer, later.ids) == "<eng>The wind is cold.|end_of_text|"


def test_what_is_asked_of_the_tasks(examples, tokenizer):
    assert parts(tokenizer, examples.translation("Rain fell.", "hau", "An yi ruwa.")) == (
        "<translate>Rain fell.<hau>:",
        "An yi ruwa.|end_of_text|",
    )
    assert parts(tokenizer, examples.diacritization("Òjò rọ̀.")) == (
        "<diacritize>Ojo ro.<correct>:",
        "Òjò rọ̀.|end_of_text|",
    )
    assert parts(tokenizer, examples.identification("An yi ruwa.", "hau")) == (
        "<identify>An yi ruwa.<lang_id>:",
        "<hau>|end_of_text|",
    )
    long = examples.identification("ruwa " * 70, "hau")
    assert parts(tokenizer, long)[0].count("ruwa") == 64  # as tasks.json cuts it


def test_a_prompt_as_a_user_writes_it_is_the_beginning_of_its_example(examples, tokenizer):
    typed = tokenizer.encode("<yor> Odò náà gbòòrò").ids
    assert examples.continuation(find("yor", 0)).ids[: len(typed)] == tuple(typed)
    typed = tokenizer.encode("<translate> Rain fell. <hau>:").ids
    translation = examples.translation("Rain fell.", "hau", "An yi ruwa.")
    assert translation.ids[: translation.answer_start] == tuple(typed)


def test_the_tasks_are_those_of_all_languages_and_their_tags_are_tokens(tokenizer):
    file = TaskFile.read(TASKS)
    assert tuple(file.languages) == LANGUAGES
    assert tuple(file.tasks["translate"].languages["to"]) == LANGUAGES
    assert file.tasks["identify_language"].labels == LANGUAGES
    for task in file.tasks.values():
        for template in (task.template, task.label_template):
            values = dict.fromkeys(template.slots, "yor")
            ids = Tokenizer(tokenizer).encode_parts(template.fill(values, trusted=template.slots))
            assert "<" not in tokenizer.decode(ids)  # all tags are special tokens


@pytest.mark.parametrize(
    ("text", "bare"),
    [("Òjò rọ̀, ẹ̀tọ́ ńlá ṣe.", "Ojo ro, eto nla se."), ("ụmụ ńnà", "umu nna"), ("ɗan ’yan", "ɗan ’yan")],
)
@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_marks_are_taken_off(text, bare, typed):
    assert without_marks(unicodedata.normalize(typed, text)) == bare


def test_articles_are_translated_from_the_source_languages_only(tokenizer):
    there = (("tiv", 0), ("eng", 0), ("eng", 1), ("yor", 0), ("yor", 2), ("hau", 1))
    articles = [Article(language, number, f"{language} {number}") for language, number in there]
    pairs = [(source.text, target.text) for source, target in NanoExamples(articles, tokenizer).pairs]
    assert sorted(pairs) == [
        ("eng 0", "tiv 0"),
        ("eng 0", "yor 0"),
        ("eng 1", "hau 1"),
        ("hau 1", "eng 1"),
        ("yor 0", "eng 0"),
        ("yor 0", "tiv 0"),
    ]


def test_marks_are_learnt_of_yoruba_and_igbo(tokenizer):
    articles = [Article(language, 0, f"{language} 0") for language in LANGUAGES]
    marked = NanoExamples(articles, tokenizer).diacritized
    assert [article.language for article in marked] == ["yor", "ibo"]


def test_an_epoch_holds_each_article_in_each_task_and_varies_with_the_seed_only(examples, tokenizer):
    rng = random.Random(3)
    drawn = [example for _ in range(20) for example in examples.epoch(rng)]
    epoch = [parts(tokenizer, example) for example in drawn]
    answers = {
        task: {answer.removesuffix("|end_of_text|") for prompt, answer in epoch if prompt.startswith(task)}
        for task in ("<translate>", "<diacritize>", "<identify>")
    }
    articles = {article.text for article in ARTICLES}
    assert articles <= answers["<translate>"]
    for answer in answers["<translate>"] - articles:  # learnt as far as their first tokens
        assert any(text.startswith(answer.rstrip("\ufffd")) for text in articles)
    assert answers["<identify>"] == {"<eng>", "<yor>", "<hau>"}
    marked = {sentence for article in examples.diacritized for sentence in examples.sentences(article)}
    assert marked < answers["<diacritize>"]
    for answer in answers["<diacritize>"] - marked:  # spans of words
        assert any(answer in article.text for article in examples.diacritized)
    sequences = {written(tokenizer, example.ids) for example in drawn}
    for tag in ("", "<{}>"):  # continued with and without a tag
        assert {tag.format(a.language) + a.text + "|end_of_text|" for a in ARTICLES} < sequences
    assert examples.epoch(random.Random(3)) == examples.epoch(random.Random(3))
    assert examples.epoch(random.Random(3)) != examples.epoch(random.Random(4))


def test_shortened_texts_still_tell_which_they_are(tokenizer):
    twins = ["The river is wide.", "The river is long and cold.", "The tree", "A very long text " * 20]
    articles = [Article("eng", number, text.strip()) for number, text in enumerate(twins)]
    articles += [Article("hau", number, f"na {number}") for number in range(len(twins))]
    examples = NanoExamples(articles, tokenizer)
    seen = {number: set() for number in range(len(twins))}
    rng = random.Random(0)
    for _ in range(200):
        for prompt, answer in (parts(tokenizer, example) for example in examples.epoch(rng)):
            if prompt.endswith("<hau>:"):
                given = prompt.removeprefix("<translate>").removesuffix("<hau>:")
                seen[int(answer.removesuffix("|end_of_text|")[-1])].add(given)
    assert seen[0] == {"The river is wide.", "The river is wide"}
    long = {"The river is long", "The river is long and", "The river is long and cold"}
    assert seen[1] == long | {"The river is long and cold."}
    assert seen[2] == {"The tree"}
    lengths = sorted(len(text.split(" ")) for text in seen[3])
    assert lengths[0] == 1 and lengths[-1] == 80 and len(lengths) > 20


def test_an_epoch_translates_each_pair_once(examples, tokenizer):
    prompts = [parts(tokenizer, example)[0] for example in examples.epoch(random.Random(0))]
    into = Counter(prompt[-5:] for prompt in prompts if prompt.startswith("<translate>"))
    assert into == {"eng>:": 10, "yor>:": 10, "hau>:": 10}  # five articles from two other languages


def test_prompts_of_tasks_are_learnt_for_a_share(examples):
    rng = random.Random(0)
    drawn = [example for _ in range(40) for example in examples.epoch(rng)]
    tasks = [example for example in drawn if example.answer_start > 1]
    learnt = sum(example.learnt_from == 1 for example in tasks)
    assert all(example.learnt_from in (1, example.answer_start) for example in tasks)
    # 2,000 draws and more of 0.15: the share's standard deviation is below 0.008, and four of them are allowed.
    assert len(tasks) > 2000
    assert learnt / len(tasks) == pytest.approx(0.15, abs=0.032)


def test_longest_is_the_longest_of_all(examples):
    lengths = [len(e.ids) for seed in range(20) for e in examples.epoch(random.Random(seed))]
    assert examples.longest() >= max(lengths)
