from __future__ import annotations

import unicodedata

import pytest

from tests.tools.nano.tiny_corpus import ARTICLES
from tools.nano.tokenizer import LANGUAGES, SPECIAL_TOKENS, train_tokenizer

TEXTS = {
    "yor": "Gbogbo ènìyàn ni a bí ní òmìnira; iyì àti ẹ̀tọ́ kọ̀ọ̀kan sì dọ́gba.",
    "ibo": "A mụrụ mmadụ niile n'ohere nhatanha, ha nwere ùgwù na ikike; ńnà, ọ̀ bụ̀ ya?",
    "hau": "Su dai ’yan-adam, ɗan ƙasa da ɓarawo; ƴaƴa sun yi ƙwazo.",
    "other": "naïve 東京 🙂 x\ny\t42",
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((article.text for article in ARTICLES), vocab_size=400)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_text_comes_back_as_nfc_however_it_was_typed(tokenizer, text, typed):
    ids = tokenizer.encode(unicodedata.normalize(typed, text)).ids
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
    assert ids == tokenizer.encode(text).ids


def test_every_tag_is_one_id_and_the_end_token_is_the_first(tokenizer):
    assert {f"<{language}>" for language in LANGUAGES} < set(SPECIAL_TOKENS)
    assert tokenizer.token_to_id("|end_of_text|") == 0
    for token_id, token in enumerate(SPECIAL_TOKENS):
        assert tokenizer.encode(token).ids == [token_id]


def test_tags_swallow_the_space_around_them(tokenizer):
    tight = tokenizer.encode("<translate>We go<yor>A máa").ids
    assert tokenizer.encode("<translate> We go <yor> A máa").ids == tight
    assert tokenizer.decode(tight) == "We goA máa"


def test_tags_do_not_appear_in_decoded_text(tokenizer):
    assert tokenizer.decode(tokenizer.encode("<yor> Òjò rọ̀.|end_of_text|").ids) == "Òjò rọ̀."


def test_a_combining_mark_does_not_end_a_word(tokenizer):
    words = tokenizer.pre_tokenizer.pre_tokenize_str("ọkọ̀ ojú ẹ̀tọ́, 42")
    assert [span for _, span in words] == [(0, 4), (4, 8), (8, 14), (14, 15), (15, 17), (17, 18)]


def test_the_same_texts_give_the_same_tokenizer(tokenizer):
    again = train_tokenizer((article.text for article in ARTICLES), vocab_size=400)
    assert again.to_str() == tokenizer.to_str()
    assert tokenizer.get_vocab_size() == 400


def test_the_vocabulary_holds_at_least_the_bytes_and_the_special_tokens():
    assert train_tokenizer(["ab"], vocab_size=10).get_vocab_size() == 256 + len(SPECIAL_TOKENS)
