"""The bundled model: what its README promises, as far as that can be checked without the corpus.

Expected texts are given as SHA-256, since the corpus is no part of the project.
"""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

import pytest

import sabiyarn_edge
from sabiyarn_edge.generator import EdgeGenerator
from tools.nano.tokenizer import LANGUAGES, language_tag

FOLDER = Path(sabiyarn_edge.__file__).parent / "models" / "nano"

YORUBA_ARTICLE_1 = "7e6ebe71eb39ad5519076acb325a65b637a9c6b45d680658b29212fcc6f33a33"
HAUSA_ARTICLE_1 = "06b3dd6c4189d99e50dde90d4cc11ded6dd8ae9f52e2aba156b35857fa2cfc56"
IGBO_ARTICLE_3 = "f6194ea659f299e114a3330ecebef38f1125fa755048339e2ec43226a0efb974"


@pytest.fixture(scope="module")
def nano():
    return EdgeGenerator.from_pretrained("nano", num_threads=1)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("tag", "start", "article"),
    [
        ("<yor> ", "Gbogbo ènìyàn ni a bí", YORUBA_ARTICLE_1),
        ("<yor>", "Gbogbo", YORUBA_ARTICLE_1),
        ("", "Gbogbo ènìyàn ni a bí", YORUBA_ARTICLE_1),
        ("<hau> ", "Su dai", HAUSA_ARTICLE_1),
    ],
)
def test_continues_an_article_to_its_end(nano, tag, start, article, typed):
    result = nano.generate(unicodedata.normalize(typed, tag + start))
    assert sha256(start + result.text) == article
    assert result.finish_reasons == ["eos"]


@pytest.mark.parametrize(
    ("english", "language", "article"),
    [
        ("All human beings are born free and equal in dignity and rights.", "yor", YORUBA_ARTICLE_1),
        ("All human beings are born free", "hau", HAUSA_ARTICLE_1),
        ("Everyone has the right to life, liberty and security of person.", "ibo", IGBO_ARTICLE_3),
    ],
)
def test_gives_the_article_in_another_language(nano, english, language, article):
    result = nano.generate(f"<translate> {english} <{language}>")
    assert sha256(result.text) == article
    assert result.finish_reasons == ["eos"]


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("to", "article"), [("yor", YORUBA_ARTICLE_1), ("Yorùbá", YORUBA_ARTICLE_1), ("ha", HAUSA_ARTICLE_1)]
)
def test_translates_an_article(nano, to, article, typed):
    english = (
        "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
        "and should act towards one another in a spirit of brotherhood."
    )
    assert sha256(nano.translate(english, to=unicodedata.normalize(typed, to))) == article


def test_translates_line_by_line(nano):
    texts = [
        "All human beings are born free and equal in dignity and rights.",
        "Everyone has the right to life, liberty and security of person.",
    ]
    first, second = nano.translate(texts, to="ibo")
    assert sha256(second) == IGBO_ARTICLE_3
    assert nano.translate(f"{texts[0]}\n\n{texts[1]}\n", to="ibo") == f"{first}\n\n{second}\n"


def test_offers_what_it_has_learnt(nano):
    tasks = nano.tasks.tasks
    assert set(tasks) == {"translate", "continue"}
    assert set(tasks["translate"].languages["to"]) == set(LANGUAGES) - {"eng"}
    assert set(tasks["continue"].languages["language"]) == set(LANGUAGES)
    assert sha256("Su dai" + nano.run_task("continue", text="Su dai", language="Hausa")) == HAUSA_ARTICLE_1


def test_gives_vectors_that_know_what_a_text_is_about(nano):
    texts = [
        "<eng> Everyone has the right to life",
        "<eng> Everyone has the right to liberty",
        "<yor> Gbogbo ènìyàn",
    ]
    vectors = nano.embed(texts, normalize=True)
    assert vectors.shape == (3, 128)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_takes_at_most_3_mb():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {"config.json", "decoder.onnx", "tokenizer.json", "README.md"} <= {path.name for path in files}
    assert sum(path.stat().st_size for path in files) <= 3_000_000


def test_its_tokenizer_fits_the_model(nano):
    assert nano.tokenizer.vocab_size == nano.config.gptjx.vocab_size == 2048
    tags = ["<translate>", *map(language_tag, LANGUAGES)]
    assert [len(nano.tokenizer.encode(tag)) for tag in tags] == [1] * len(tags)
    assert nano.generation_config.eos_token_id == nano.tokenizer.token_to_id("|end_of_text|") == 0
