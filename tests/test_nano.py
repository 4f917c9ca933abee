"""The bundled model: what its README promises, as far as that can be checked without the corpus.

Expected texts are given as SHA-256, since the corpus is no part of the project.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path

import pytest

import sabiyarn_edge
from sabiyarn_edge.chat.template import ChatTemplate
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.generator import EdgeGenerator
from tools.nano.examples import TASKS, without_marks
from tools.nano.tokenizer import SPECIAL_TOKENS

FOLDER = Path(sabiyarn_edge.__file__).parent / "models" / "nano"

ENGLISH_ARTICLE_1 = "a2ccb5fb55a20f5d5db80ecf01a1e24803441a328040261fd07466369b09a345"
YORUBA_ARTICLE_1 = "7e6ebe71eb39ad5519076acb325a65b637a9c6b45d680658b29212fcc6f33a33"
HAUSA_ARTICLE_1 = "06b3dd6c4189d99e50dde90d4cc11ded6dd8ae9f52e2aba156b35857fa2cfc56"
IGBO_ARTICLE_3 = "f6194ea659f299e114a3330ecebef38f1125fa755048339e2ec43226a0efb974"
PIDGIN_ARTICLE_3 = "3c140d24b2bab8f31ff03958b7c4b561fcdeb4841f4e544690ebacf57df03eac"
YORUBA_ARTICLE_3 = "9773656d8a8aaac3f3118310bfb7b19af8be32d6868364c96e5ae79a295b21a0"

ENGLISH_1 = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
    "and should act towards one another in a spirit of brotherhood."
)
ENGLISH_3 = "Everyone has the right to life, liberty and the security of person."
IGBO_3 = "Onye ọ bụla nwere ikike inwe ndụ, ohere na nchedo nke onwe ya."
YORUBA_3 = "Ẹnì kọ̀ọ̀kan ló ní ẹ̀tọ́ láti wà láàyè, ẹ̀tọ́ sí òmìnira àti ẹ̀tọ́ sí ààbò ara rẹ̀."


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
        ("", "Gbogbo ènìyàn ni a bí", YORUBA_ARTICLE_1),
        ("<hau> ", "Su dai", HAUSA_ARTICLE_1),
    ],
)
def test_continues_an_article_to_its_end(nano, tag, start, article, typed):
    result = nano.generate(unicodedata.normalize(typed, tag + start))
    assert sha256(start + result.text) == article
    assert result.finish_reasons == ["eos"]


@pytest.mark.parametrize(
    ("text", "language", "article"),
    [
        (ENGLISH_1, "yor", YORUBA_ARTICLE_1),
        (ENGLISH_3, "ibo", IGBO_ARTICLE_3),
        (IGBO_3, "pcm", PIDGIN_ARTICLE_3),
    ],
)
def test_a_prompt_with_tags_gives_the_article_in_another_language(nano, text, language, article):
    result = nano.generate(f"<translate> {text} <{language}>:")
    assert sha256(result.text) == article
    assert result.finish_reasons == ["eos"]


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("text", "to", "article"),
    [
        (ENGLISH_1, "yor", YORUBA_ARTICLE_1),
        (ENGLISH_1, "ha", HAUSA_ARTICLE_1),
        (ENGLISH_3, "Igbo", IGBO_ARTICLE_3),
        (YORUBA_3, "Pidgin", PIDGIN_ARTICLE_3),
        (IGBO_3, "Yorùbá", YORUBA_ARTICLE_3),
    ],
)
def test_translates_an_article(nano, text, to, article, typed):
    given, language = (unicodedata.normalize(typed, value) for value in (text, to))
    assert sha256(nano.translate(given, to=language)) == article


def test_translates_line_by_line(nano):
    first, second = nano.translate([ENGLISH_1, ENGLISH_3], to="yor")
    assert (sha256(first), sha256(second)) == (YORUBA_ARTICLE_1, YORUBA_ARTICLE_3)
    assert nano.translate(f"{ENGLISH_1}\n\n{ENGLISH_3}\n", to="yor") == f"{first}\n\n{second}\n"


def test_the_beginning_of_an_article_is_enough(nano):
    assert sha256(nano.translate(ENGLISH_1.split(".")[0], to="yor")) == YORUBA_ARTICLE_1


@pytest.mark.parametrize("text", [YORUBA_3, IGBO_3], ids=["Yoruba", "Igbo"])
def test_puts_marks_on(nano, text):
    bare = without_marks(text)
    assert bare != text
    assert nano.diacritize(bare) == text


def test_names_the_language(nano):
    texts = {
        "eng": ENGLISH_3,
        "yor": YORUBA_3,
        "ibo": IGBO_3,
        "hau": "Su dai ’yan-adam, ana haifuwarsu ne duka",
    }
    found = nano.identify_language(list(texts.values()))
    assert [one.label for one in found] == list(texts)
    assert min(one.probability for one in found) > 0.5


def test_offers_what_it_has_learnt(nano):
    given, own = (json.loads((folder / "tasks.json").read_text("utf-8")) for folder in (TASKS.parent, FOLDER))
    assert own.pop("known_prompts")["least_log_prob"] < 0
    assert own == given
    assert sha256("Su dai" + nano.run_task("continue", text="Su dai", language="Hausa")) == HAUSA_ARTICLE_1


def test_its_chat_template_hands_over_the_last_message_of_the_user():
    pytest.importorskip("jinja2")
    template = ChatTemplate.find(FOLDER)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "?"},
        {"role": "user", "content": "Gbogbo ènìyàn"},
    ]
    assert template.render(messages) == "Gbogbo ènìyàn"
    with pytest.raises(InvalidInputError, match="there is none"):
        template.render(messages[:1])


def test_a_message_is_continued_and_may_be_a_prompt_with_tags(nano):
    pytest.importorskip("jinja2")
    start = "Gbogbo ènìyàn ni a bí"
    answer = nano.chat([{"role": "user", "content": start}])
    assert sha256(f"{start} {answer.content.strip()}") == YORUBA_ARTICLE_1
    asked = [{"role": "user", "content": f"<translate> {ENGLISH_3} <yor>:"}]
    assert sha256(nano.chat(asked, special_tokens=True).content) == YORUBA_ARTICLE_3


@pytest.mark.parametrize(
    ("prompt", "known"),
    [
        (f"<translate> {ENGLISH_3} <yor>:", True),
        ("<yor> Gbogbo ènìyàn ni a bí", True),
        (ENGLISH_1, True),
        ("<translate> My uncle bought two yams at the market yesterday. <yor>:", False),
        ("<yor> Ìyá mi ra iṣu méjì ní ọjà lánàá.", False),
        ("Please tell me a story about the moon.", False),
    ],
)
def test_tells_prompts_that_it_can_know_from_others(nano, prompt, known):
    [score] = nano.score([prompt])
    assert nano.tasks.known_prompts.knows(score.log_probs) is known


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
    names = {
        "config.json",
        "decoder.onnx",
        "tokenizer.json",
        "tasks.json",
        "chat_template.jinja",
        "README.md",
    }
    assert names <= {path.name for path in files}
    assert sum(path.stat().st_size for path in files) <= 3_000_000


def test_its_tokenizer_fits_the_model(nano):
    assert nano.tokenizer.vocab_size == nano.config.gptjx.vocab_size == 2048
    assert [nano.tokenizer.encode(token) for token in SPECIAL_TOKENS] == [
        [i] for i in range(len(SPECIAL_TOKENS))
    ]
    assert nano.generation_config.eos_token_id == nano.tokenizer.token_to_id("|end_of_text|") == 0
