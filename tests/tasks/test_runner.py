"""Tasks on a tiny model, against prompts written by hand and given to generate()."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from sabiyarn_edge.tasks.answers import Entity
from sabiyarn_edge.tasks.runner import CutAnswerWarning
from sabiyarn_edge.tasks.task_file import TaskFile
from tests.tasks.tags import TAGS, tagged_tokenizer
from tests.tiny_tokenizer import tiny_tokenizer

pytestmark = pytest.mark.filterwarnings(
    "ignore::sabiyarn_edge.tasks.runner.CutAnswerWarning"
)  # a random model babbles

BEAMS = {"num_beams": 5, "length_penalty": 3.0, "early_stopping": True}
SHORT = {"max_new_tokens": 12}


def written(generator, prompt, **options):
    """The text behind a prompt, which is a string or ids."""
    return generator.generate(prompt, **{**BEAMS, **SHORT, **options}).text.strip()


@pytest.fixture
def tasks_of(generator, monkeypatch):
    """tasks_of(text of a tasks.json): the generator with these tasks."""

    def use(text):
        monkeypatch.setitem(generator.__dict__, "tasks", TaskFile.parse(text, "tasks.json"))
        return generator

    return use


@pytest.mark.parametrize(
    ("method", "arguments", "prompt", "options"),
    [
        ("translate", {"texts": "Gbogbo ènìyàn", "to": "Yoruba"}, "<translate> Gbogbo ènìyàn <yor>:", {}),
        ("translate", {"texts": " Báwo? \n", "to": "ha", "source": "yo"}, "<translate> Báwo? <hau>:", {}),
        ("diacritize", {"texts": "omo ile"}, "<diacritize> omo ile <correct>:", {}),
        ("clean", {"texts": "omo  ile"}, "<clean> omo  ile <correct>:", {}),
        ("summarize", {"texts": "A. B.\nC."}, "<summarize> A. B.\nC. <summary>:", {}),
        ("headline", {"texts": "omo"}, "<title> omo <headline>:", {"length_penalty": 1.0}),
        (
            "answer",
            {"question": "Ta ni?", "context": "Ade ni."},
            "<qa> Ade ni. Ta ni? <answer>:",
            {"length_penalty": 1.0},
        ),
    ],
)
def test_answers_are_those_of_the_prompt(generator, method, arguments, prompt, options):
    given = getattr(generator, method)(**arguments, **SHORT)
    assert given.strip() == written(generator, prompt, **options)


def test_instructions(generator):
    prompt = "<prompt> Kọrin <response>:"
    room = 256 - len(generator.tokenizer.encode(prompt))  # less than the task's max_new_tokens
    expected = generator.generate(prompt, repetition_penalty=4.0, max_new_tokens=room).text
    assert generator.instruct("Kọrin") == expected.strip()


def test_the_tasks_options_are_the_authors(generator):
    assert generator.translate("omo", to="yor") == written(
        generator, "<translate> omo <yor>:", max_new_tokens=163
    )


def test_lists_give_lists_in_order(generator):
    texts = ["omo", "ile ńlá", "", "oṣù kejì", "\n \n"]
    expected = [generator.diacritize(text, **SHORT) for text in texts]
    assert generator.diacritize(texts, **SHORT) == expected
    assert expected[2] == "" and expected[4] == "\n \n"
    assert generator.diacritize([]) == []
    assert generator.diacritize(("omo",), **SHORT) == [expected[0]]


def test_documents_keep_their_form(generator):
    document = "\tGbogbo ènìyàn. Ilé ńlá!\r\n\n\n  Ọjọ́ kìíní?\n"
    words = {text: generator.clean(text, **SHORT) for text in ("Gbogbo ènìyàn.", "Ilé ńlá!", "Ọjọ́ kìíní?")}
    a, b, c = words.values()
    assert generator.clean(document, **SHORT) == f"\t{a} {b}\r\n\n\n  {c}\n"


def test_long_sentences_are_cut_to_fit_the_positions(generator):
    text = " ".join(["Gbogbo ènìyàn ni a bí ní òmìnira"] * 40)  # far more than 256 tokens
    assert generator.diacritize(text, max_new_tokens=20, num_beams=1)


def test_special_tokens_that_a_user_types_are_text(generator):
    """The oracle is the tokenizer without any tags, between the ids of the template's tags."""
    text, plain = "kini <yor> ati <translate>?", tiny_tokenizer()
    tag = tagged_tokenizer().token_to_id
    prompt = [tag("<translate>"), *plain.encode(f" {text} ").ids, tag("<yor>"), *plain.encode(":").ids]
    assert generator.translate(text, to="yor", **SHORT) == written(generator, prompt)
    read = generator.run_task("translate", text=text, to="yor", special_tokens=True, options=SHORT)
    assert read == written(generator, f"<translate> {text} <yor>:")


def test_options_of_a_call_win(generator):
    given = generator.clean("omo", num_beams=1, max_new_tokens=7)
    assert given == generator.generate("<clean> omo <correct>:", max_new_tokens=7).text.strip()
    assert generator.run_task("clean", text="omo", options={"num_beams": 1, "max_new_tokens": 7}) == given


def test_drawn_answers_repeat_with_a_seed_and_differ_without_equal_seeds(generator):
    options = {"do_sample": True, "num_beams": 1, "max_new_tokens": 12}
    texts = ["omo", "omo"]
    drawn = generator.clean(texts, seed=3, **options)
    assert generator.clean(texts, seed=3, **options) == drawn
    assert drawn[0] != drawn[1]
    assert generator.clean("omo", seed=3, **options) == drawn[0]
    assert generator.clean(texts, seed=[5, 5], **options)[0] == generator.clean("omo", seed=5, **options)
    with pytest.raises(InvalidInputError, match="1 seeds for 2 texts"):
        generator.clean(texts, seed=[5], **options)


def test_an_answer_that_is_cut_is_told(generator):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        generator.clean("omo", max_new_tokens=1, num_beams=1, suppress_tokens=[256])
    assert [w.category for w in caught] == [CutAnswerWarning]
    assert "1 of 1 answers of the task clean were cut" in str(caught[0].message)


# --- labels


@pytest.mark.parametrize(
    ("labels", "prompt", "names"),
    [
        ("sentiment", "<classify> Ilé ńlá <sentiment> :", ["positive", "negative", "neutral"]),
        (
            "Topic",
            "<classify> Ilé ńlá <topic> :",
            "business entertainment health politics religion sports technology",
        ),
        (["ọmọ", "ilé", "ilé ńlá"], "<classify> Ilé ńlá <topic> :", ["ọmọ", "ilé", "ilé ńlá"]),
    ],
)
def test_labels_are_scored_as_torch_scores_them(generator, tagged, labels, prompt, names):
    names = names.split() if isinstance(names, str) else names
    assert expected_shares(tagged, prompt, [f" {name}" for name in names], names) == pytest.approx(
        generator.classify("Ilé ńlá", labels).probabilities, abs=1e-5
    )  # float32 log-probabilities of up to 15 tokens, each off by less than 1e-6


def test_languages_are_labels_too(generator, tagged):
    names = ["eng", "yor", "hau", "ibo"]
    expected = expected_shares(
        tagged, "<lang_ID> Ilé ńlá <lang_ID_label>:", [f" <{name}>" for name in names], names
    )
    found = generator.identify_language("Ilé ńlá")
    assert expected == pytest.approx(found.probabilities, abs=1e-5)
    assert found.label == max(expected, key=expected.get)
    assert found.probability == max(found.probabilities.values())


def expected_shares(tagged, prompt, labels, names):
    """Softmax over the labels' log-probabilities, by the torch model."""
    model = GPTJXForCausalLM.from_pretrained(tagged.folder.parent / "checkpoint")
    tokenizer = tagged_tokenizer()
    ids = tokenizer.encode(prompt).ids
    totals = []
    for label in labels:
        choice = tokenizer.encode(label).ids  # the model folder names no end token
        with torch.no_grad():
            logits = model(torch.tensor([ids + choice])).logits[0].double().log_softmax(-1)
        totals.append(sum(logits[len(ids) - 1 + i, token].item() for i, token in enumerate(choice)))
    likelihoods = np.exp(np.array(totals) - max(totals))
    return dict(zip(names, likelihoods / likelihoods.sum(), strict=True))


def test_several_texts_have_the_same_probabilities_as_each_alone(generator):
    texts = ["Ilé ńlá", "ọmọ", "Gbogbo ènìyàn ni a bí"]
    together = generator.classify(texts, "sentiment")
    assert [found.probabilities for found in together] == [
        generator.classify(text, "sentiment").probabilities for text in texts
    ]
    for found in together:
        values = list(found.probabilities.values())
        assert sum(values) == pytest.approx(1)
        assert values == sorted(values, reverse=True)


def test_a_text_is_cut_to_max_words(generator):
    words = [f"o{i}" for i in range(10)]
    text = '{"format_version": 1, "tasks": {"mood": {"template": "{text} <sentiment> :", "answer": "label", '
    text += '"labels": ["a", "b"], "max_words": 3}}}'
    file = TaskFile.parse(text, "tasks.json")
    generator = EdgeGenerator.from_pretrained(generator._arguments["path"], num_threads=1)
    generator.__dict__["tasks"] = file
    assert generator.classify(" ".join(words), "mood") == generator.classify("o0 o1 o2", "mood")


# --- entities


def test_entities_have_their_places_in_the_text(generator, monkeypatch):
    text = " Mike Adénúgà, dé.\nÓ ti Lagos wá. "
    asked = []

    def answers(prompts, max_in_flight, options):
        for (ids, _), tags in zip(prompts, ["B-PER I-PER O O O", "O O B-LOC O O"], strict=True):
            asked.append(generator.tokenizer.decode(ids, skip_special_tokens=False))
            yield type("Result", (), {"text": f" {tags} ", "finish_reasons": ["eos"]})

    monkeypatch.setattr(generator, "_map", answers)
    found = generator.tag_entities(text)
    assert asked == ["<NER> Mike Adénúgà , dé . <tag> :", "<NER> Ó ti Lagos wá . <tag> :"]
    assert found == [Entity("PER", "Mike Adénúgà", 1, 13), Entity("LOC", "Lagos", 24, 29)]
    assert all(text[entity.start : entity.end] == entity.text for entity in found)


# --- what is refused


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda g: g.translate("a", to="yorub"), r"to is 'yorub'; it must be .*Did you mean yor \(Yoruba\)\?"),
        (lambda g: g.translate("a", to=None), "to is None; it must be one of"),
        (lambda g: g.translate(3, to="yor"), "text is a int; it must be a string, or a list"),
        (lambda g: g.translate(["a", None], to="yor"), r"text\[1\] is a NoneType"),
        (lambda g: g.translate(["a", "b"], to=["yor"]), "lists differ in length: text 2, to 1"),
        (lambda g: g.translate("a", to="yor", num_beam=2), "unknown option num_beam; did you mean num_beams"),
        (lambda g: g.translate("a", to="yor", num_return_sequences=2), "one answer for each text"),
        (lambda g: g.run_task("translate", text="a"), "the task translate needs to. Give to="),
        (lambda g: g.run_task("translate", text="a", to="yor", tone=1), "has no slot tone; it has text, to"),
        (lambda g: g.run_task("translat", text="a"), "Did you mean translate"),
        (lambda g: g.run_task("clean", text="a", labels=["b", "c"]), "the task clean takes no labels"),
        (lambda g: g.run_task("clean", text="a", special_tokens=1), "special_tokens is 1, but must be True or False"),
        (lambda g: g.classify("a", "sentimental"), "labels is 'sentimental'; .*Did you mean sentiment"),
        (lambda g: g.classify("a", "translate"), "labels is 'translate'; it must be one of sentiment, topic, identify"),
        (lambda g: g.classify("a", ["b"]), "1 label is no choice"),
        (lambda g: g.classify("a", ["b", "b"]), r"labels\[1\] is 'b', which the list has already"),
        (lambda g: g.classify("a", ["b", 3]), r"labels\[1\] is 3, but must be a text"),
        (lambda g: g.classify("a", []), "0 label"),
        (lambda g: g.classify("  ", "sentiment"), "text is empty"),
        (lambda g: g.classify("a " * 300, "sentiment"), "positions, but there are 256"),
        (lambda g: g.run_task("sentiment", text="a", labels=["b", "c"]), "has labels of its own: positive"),
        (lambda g: g.run_task("classify", text="a"), "has no labels of its own"),
        (lambda g: g.summarize(["b", "a " * 300]), r"text 1 makes a prompt of .* more than the 256 positions"),
        (lambda g: g.clean("a", max_new_tokens=255), "text 0 makes a prompt of .* needs 255"),
        (lambda g: g.run_task("classify", text="a", labels="bc"), "labels is 'bc', but must be a list"),
        (lambda g: g.answer("", "b"), "question is empty"),
        (lambda g: g.clean("a\ud800"), "half a surrogate pair"),
    ],
)  # fmt: skip
def test_what_is_refused(generator, ask, message):
    with pytest.raises(InvalidInputError, match=message):
        ask(generator)


def test_a_model_without_tasks_says_so(text_model):
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    with pytest.raises(InvalidInputError, match=r"no tasks: its folder has no tasks\.json"):
        generator.translate("a", to="yor")


def test_sources_are_checked_where_the_task_names_them(tasks_of):
    generator = tasks_of(
        '{"format_version": 1, "languages": {"eng": {"name": "English"}, "yor": {"name": "Yoruba"}}, "tasks": '
        '{"translate": {"template": "{text} <{to}>", "languages": {"to": ["yor"]}, "sources": ["eng"], '
        '"options": {"max_new_tokens": 3}}}}'
    )
    assert generator.translate("a", to="yor") == generator.translate("a", to="yor", source="English")
    with pytest.raises(InvalidInputError, match=r"source is 'yor'; it must be one of eng \(English\)"):
        generator.translate("a", to="yor", source="yor")


def test_the_tags_are_single_tokens():
    tokenizer = tagged_tokenizer()
    assert all(len(tokenizer.encode(tag).ids) == 1 for tag in TAGS)
